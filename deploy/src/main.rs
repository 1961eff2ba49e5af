//! The keeladm binary.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = keelson_deploy::cli::Cli::parse();
    match cli.run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("keeladm: {error:#}");
            ExitCode::FAILURE
        }
    }
}
