//! What priority and fairness costs a request for which there is a seat: nanoseconds, by who asks for what.
//!
//! `cargo run --release -p keelson-apiserver --example admission_cost`

use std::time::Instant;

use keelson_apiserver::authentication::User;
use keelson_apiserver::authorization::attributes::{Attributes, Resource};
use keelson_apiserver::flow_control::{FlowControl, Pool};
use keelson_apiserver::metrics::flows::FlowMetrics;

const ROUNDS: u32 = 1_000_000;
const SEATS: u32 = 600;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let flow = FlowControl::fair(SEATS, FlowMetrics::default());
    let pods = Attributes::resource(
        "get",
        Resource {
            version: "v1",
            resource: "pods",
            namespace: "default",
            name: "web",
            ..Resource::default()
        },
    );
    for (who, groups) in [
        ("admin", "system:masters"),
        ("system:node:n1", "system:nodes"),
        ("system:serviceaccount:default:web", "system:serviceaccounts"),
        ("jane", "dev"),
    ] {
        let user = User::named(who, [groups.to_owned()]);
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            let belongs = flow.flow(&user, &pods);
            let place = flow.enter(&belongs, (&user, &pods), Pool::Reading, 1).await;
            assert!(place.is_ok(), "there are seats");
        }
        println!("{who}: {} ns", begun.elapsed().as_nanos() / u128::from(ROUNDS));
    }
}
