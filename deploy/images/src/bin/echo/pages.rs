//! What the server says.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::http::{Answer, Request};

/// The server's identity and its switches.
pub struct Pages {
    pub host: String,
    message: String,
    version: String,
    requests: AtomicU64,
    failing: AtomicBool,
    unready: AtomicBool,
    stopping: AtomicBool,
}

impl Pages {
    pub fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = variable("POD_NAME")
            .or_else(|| variable("HOSTNAME"))
            .or_else(|| {
                Some(
                    std::fs::read_to_string("/proc/sys/kernel/hostname")
                        .ok()?
                        .trim()
                        .to_owned(),
                )
            })
            .unwrap_or_default();
        Self {
            host,
            message: variable("MESSAGE").unwrap_or_else(|| "Hello from Keelson!".into()),
            version: variable("VERSION").unwrap_or_else(|| "1".into()),
            requests: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            unready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether it was told to fail.
    pub fn failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    /// Whether it takes requests.
    pub fn ready(&self) -> bool {
        !self.unready.load(Ordering::SeqCst) && !self.stopping()
    }

    pub fn answer(&self, request: &Request, peer: &str, local: &str) -> Answer {
        let count = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let posted = request.method == "POST";
        match request.path() {
            "/healthz" if self.failing() => text("500 Internal Server Error", "told to fail\n"),
            "/healthz" => text("200 OK", "ok\n"),
            "/readyz" if !self.ready() => text("503 Service Unavailable", "not ready\n"),
            "/readyz" => text("200 OK", "ok\n"),
            "/fail" if posted => switch(&self.failing, true),
            "/recover" if posted => switch(&self.failing, false),
            "/unready" if posted => switch(&self.unready, true),
            "/ready" if posted => switch(&self.unready, false),
            "/exit" if posted => {
                let code = request
                    .query("code")
                    .and_then(|code| i32::try_from(code).ok())
                    .unwrap_or(1);
                Answer {
                    exit: Some(code),
                    ..text("200 OK", "leaving\n")
                }
            }
            "/hostname" => text("200 OK", &format!("{}\n", self.host)),
            "/env" => {
                let mut variables: Vec<String> = std::env::vars()
                    .map(|(name, value)| format!("{name}={value}\n"))
                    .collect();
                variables.sort();
                text("200 OK", &variables.concat())
            }
            "/slow" => {
                std::thread::sleep(Duration::from_millis(request.query("ms").unwrap_or(1000)));
                text("200 OK", &self.page(request, peer, local, count))
            }
            _ => text("200 OK", &self.page(request, peer, local, count)),
        }
    }

    fn page(&self, request: &Request, peer: &str, local: &str, count: u64) -> String {
        let mut page = String::new();
        let _ = write!(
            page,
            "{}\nHostname: {}\nVersion: {}\nRequests: {count}\nFrom: {peer}\nTo: {local}\n\n{} {} {}\n",
            self.message, self.host, self.version, request.method, request.target, request.version,
        );
        for (name, value) in &request.headers {
            let _ = writeln!(page, "{name}: {value}");
        }
        if !request.body.is_empty() {
            let _ = write!(page, "\n{}", String::from_utf8_lossy(&request.body));
        }
        page
    }
}

fn switch(what: &AtomicBool, to: bool) -> Answer {
    what.store(to, Ordering::SeqCst);
    text("200 OK", "done\n")
}

fn text(status: &'static str, body: &str) -> Answer {
    Answer {
        status,
        body: body.as_bytes().to_vec(),
        exit: None,
    }
}
