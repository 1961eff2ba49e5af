//! A server that answers with what it was asked and by whom: the first application of every tutorial.
//!
//! ```text
//! PORT        HTTP port (8080)              GET  /            pod, version, request line, headers
//! TCP_PORT    raw TCP echo, off unless set  GET  /healthz     ok, or 500 once told to fail
//! UDP_PORT    raw UDP echo, off unless set  GET  /readyz      ok, or 503 once told to be unready
//! GRPC_PORT   gRPC health checks, off unless set: of the services "", "liveness" (as /healthz) and "readiness"
//! MESSAGE     first line of the answer      POST /fail /recover /unready /ready /exit?code=N
//! VERSION     shown in the answer           GET  /hostname /env /slow?ms=N
//! START_DELAY_MS, STOP_DELAY_MS             any other path and method: the same as /, with the body
//! ```
//! SIGTERM: no new connections after STOP_DELAY_MS, open requests are finished, exit 0.
#![allow(unsafe_code)] // blocking and waiting for signals; this program links nothing but the standard library

mod grpc;
mod http;
mod pages;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pages::Pages;

/// How long open requests may take after the signal.
const DRAIN: Duration = Duration::from_secs(5);

fn main() {
    let stop = block_stop_signals();
    std::thread::sleep(milliseconds("START_DELAY_MS"));
    let pages = Arc::new(Pages::from_environment());
    let open = Arc::new(AtomicUsize::new(0));

    let address = listen_address(number("PORT").unwrap_or(8080));
    let listener = bind(&address);
    println!("listening on {address}");
    {
        let (pages, open) = (pages.clone(), open.clone());
        std::thread::spawn(move || accept(&listener, move |stream| serve(stream, &pages, &open)));
    }
    if let Some(port) = number("TCP_PORT") {
        let listener = bind(&listen_address(port));
        std::thread::spawn(move || accept(&listener, echo_tcp));
    }
    if let Some(port) = number("GRPC_PORT") {
        let (listener, pages) = (bind(&listen_address(port)), pages.clone());
        std::thread::spawn(move || accept(&listener, move |stream| grpc::serve(stream, &pages)));
    }
    if let Some(port) = number("UDP_PORT") {
        let host = pages.host.clone();
        match UdpSocket::bind(listen_address(port)) {
            Ok(socket) => drop(std::thread::spawn(move || echo_udp(&socket, &host))),
            Err(error) => fail(&format!("listening on UDP port {port}: {error}")),
        }
    }

    let signal = wait(&stop);
    println!("stopping on signal {signal}");
    pages.stop();
    std::thread::sleep(milliseconds("STOP_DELAY_MS"));
    let deadline = Instant::now() + DRAIN;
    while open.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn number(variable: &str) -> Option<u16> {
    let text = std::env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => fail(&format!("{variable}={text:?} is not a port")),
    }
}

fn milliseconds(variable: &str) -> Duration {
    let text = std::env::var(variable).unwrap_or_default();
    Duration::from_millis(text.parse().unwrap_or(0))
}

/// All addresses of both families, or of IPv4 alone where the kernel has no IPv6.
fn listen_address(port: u16) -> String {
    let any = if std::path::Path::new("/proc/net/if_inet6").exists() {
        "[::]"
    } else {
        "0.0.0.0"
    };
    format!("{any}:{port}")
}

fn bind(address: &str) -> TcpListener {
    match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) => fail(&format!("listening on {address}: {error}")),
    }
}

fn fail(message: &str) -> ! {
    eprintln!("echo: {message}");
    std::process::exit(1)
}

fn accept(listener: &TcpListener, handle: impl Fn(TcpStream) + Clone + Send + 'static) {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                let handle = handle.clone();
                // Small stacks: thousands of idle connections must fit into a small container.
                let spawned = std::thread::Builder::new()
                    .stack_size(64 * 1024)
                    .spawn(move || handle(stream));
                if let Err(error) = spawned {
                    eprintln!("echo: starting a thread: {error}");
                }
            }
            Err(error) => {
                eprintln!("echo: accepting: {error}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Answers the requests of one connection, one after the other.
fn serve(stream: TcpStream, pages: &Pages, open: &AtomicUsize) {
    let peer = stream.peer_addr().map(|a| a.to_string()).unwrap_or_default();
    let local = stream.local_addr().map(|a| a.to_string()).unwrap_or_default();
    let _ = stream.set_nodelay(true);
    let mut connection = http::Connection::new(stream);
    while let Ok(Some(request)) = connection.read() {
        open.fetch_add(1, Ordering::SeqCst);
        let keep = request.keep_alive && !pages.stopping();
        let answer = pages.answer(&request, &peer, &local);
        println!(
            "{} {} {} from {peer}",
            answer.status, request.method, request.target
        );
        let written = connection.write(&answer, keep, request.method == "HEAD");
        open.fetch_sub(1, Ordering::SeqCst);
        if let Some(code) = answer.exit {
            std::process::exit(code);
        }
        if written.is_err() || !keep {
            return;
        }
    }
}

fn echo_tcp(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

/// Each datagram comes back behind the pod's name, so that a client sees who answered.
fn echo_udp(socket: &UdpSocket, host: &str) {
    let mut buffer = [0; 65_536];
    loop {
        if let Ok((read, peer)) = socket.recv_from(&mut buffer) {
            let mut answer = format!("{host} ").into_bytes();
            answer.extend_from_slice(&buffer[..read]);
            let _ = socket.send_to(&answer, peer);
        }
    }
}

/// Blocks the stop signals for this thread and all that it starts, to be taken by [`wait`].
fn block_stop_signals() -> libc::sigset_t {
    // SAFETY: the set is initialised by sigemptyset before it is read; all pointers are to live locals.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGTERM);
        libc::sigaddset(&raw mut signals, libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        signals
    }
}

fn wait(signals: &libc::sigset_t) -> i32 {
    let mut signal = 0;
    // SAFETY: both pointers are to live values of the right type.
    while unsafe { libc::sigwait(signals, &raw mut signal) } != 0 {}
    signal
}
