//! The decoders of kube-apiserver, fed with what nobody should send.
//!
//! | module | what is read |
//! | --- | --- |
//! | `requests` | paths, parameters, headers and bodies of requests |
//! | `expressions` | what requests bring to be computed: CEL, schemas, patterns |
//! | `callers` | who callers say they are and whom they act as, and calls over gRPC |
//! | `credentials` | tokens, keys, certificates and requests for them |
//! | `answers` | what webhooks, extension servers and issuers answer |
//! | `files` | configuration files |
//! | `stored` | what the store holds |

mod answers;
mod callers;
mod credentials;
mod expressions;
mod files;
mod requests;
mod stored;

use keelson_fuzz::{Counted, Fuzz, text};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn fuzz(name: &str) -> Fuzz {
    Fuzz::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"), name)
}
