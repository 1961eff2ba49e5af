//! One configuration loader for all daemons: `clap` flags, and `--config FILE` with the same names.
//!
//! The file is a YAML mapping from flag names (without the dashes) to values. It is turned into arguments
//! that stand before the command line's own, so that one parser, with one set of checks and messages, reads
//! both; a flag given on the command line hides the file's value. A key that is no flag is an error that names it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;
use serde_json::Value;

use crate::yaml;

/// Why a `--config` file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading configuration file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a YAML mapping of scalars and lists.
    #[error("configuration file {path}: {reason}")]
    Format {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Parses the process's command line and the `--config` file it names.
/// On an error, or for `--help`, prints what clap prints and ends the process.
#[must_use]
pub fn parse<A: Parser>() -> A {
    match try_parse(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => error.exit(),
    }
}

/// [`parse`] for given arguments, the program's name first.
///
/// # Errors
/// What clap refuses, and a configuration file that cannot be read.
pub fn try_parse<A: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<A, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let merged = match config_path(&args) {
        Some(path) => {
            let given = flags_given(&args);
            let from_file = file_arguments(Path::new(&path), &given)
                .map_err(|error| A::command().error(ErrorKind::Io, error.to_string()))?;
            args.iter()
                .take(1)
                .cloned()
                .chain(from_file)
                .chain(args.iter().skip(1).cloned())
                .collect()
        }
        None => args,
    };
    A::try_parse_from(merged)
}

fn config_path(args: &[OsString]) -> Option<OsString> {
    let mut args = args.iter().skip(1);
    while let Some(arg) = args.next() {
        let arg = arg.to_str()?;
        match arg.strip_prefix("--config") {
            Some("") => return args.next().cloned(),
            Some(rest) if rest.starts_with('=') => return Some(rest[1..].into()),
            _ => {}
        }
    }
    None
}

fn flags_given(args: &[OsString]) -> HashSet<String> {
    args.iter()
        .skip(1)
        .filter_map(|arg| arg.to_str()?.strip_prefix("--"))
        .map(|flag| flag.split('=').next().unwrap_or(flag).to_owned())
        .collect()
}

fn file_arguments(path: &Path, given: &HashSet<String>) -> Result<Vec<OsString>, ConfigError> {
    let display = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: display.clone(),
        source,
    })?;
    let format = |reason: String| ConfigError::Format {
        path: display.clone(),
        reason,
    };
    let document: Value = yaml::from_str(&text).map_err(|error| format(error.to_string()))?;
    let mapping = match document {
        Value::Null => return Ok(Vec::new()),
        Value::Object(mapping) => mapping,
        _ => return Err(format("want a mapping from flag names to values".into())),
    };
    let mut arguments = Vec::new();
    for (key, value) in mapping {
        if key == "config" {
            return Err(format("\"config\" cannot name another file".into()));
        }
        if given.contains(&key) {
            continue;
        }
        let values = match value {
            Value::Array(items) => items,
            single => vec![single],
        };
        for value in values {
            let value = scalar(&value).ok_or_else(|| {
                format(format!(
                    "the value of {key:?} is not a scalar or a list of scalars"
                ))
            })?;
            arguments.push(format!("--{key}={value}").into());
        }
    }
    Ok(arguments)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[derive(Parser, Debug)]
    struct Args {
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long, default_value_t = 1)]
        port: u16,
        #[arg(long)]
        server: Vec<String>,
        #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set)]
        quiet: bool,
    }

    fn with_file(text: &str, more: &[&str]) -> Result<Args, clap::Error> {
        let dir = tempfile::tempdir().map_err(clap::Error::from)?;
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, text).map_err(clap::Error::from)?;
        let mut args: Vec<OsString> = vec!["daemon".into(), "--config".into(), path.into()];
        args.extend(more.iter().map(OsString::from));
        try_parse(args)
    }

    #[test]
    fn the_file_fills_in_what_the_command_line_leaves_out() -> Result<(), clap::Error> {
        let args = with_file("port: 7\nserver: [a, b]\nquiet: true\n", &["--server=c"])?;
        assert_eq!((args.port, args.quiet), (7, true));
        assert_eq!(args.server, ["c"]);
        assert!(args.config.is_some());
        Ok(())
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = with_file("prot: 7\n", &[])
            .map(|_| ())
            .expect_err("an unknown key");
        assert!(error.to_string().contains("--prot"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = try_parse::<Args>(["daemon".into(), "--config=/nowhere/at/all".into()]).map(|_| ());
        assert!(
            error
                .expect_err("no such file")
                .to_string()
                .contains("/nowhere/at/all")
        );
    }

    #[test]
    fn nested_values_are_refused() {
        let error = with_file("port: {a: 1}\n", &[])
            .map(|_| ())
            .expect_err("a mapping as a value");
        assert!(error.to_string().contains("\"port\""), "{error}");
    }
}
