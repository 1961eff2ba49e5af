//! What HTTPS by itself costs on a machine: answers what a load generator for a Kubernetes API asks for with bytes that
//! are there already. What an apiserver takes beyond that is its own.
//!
//! `cargo run --release -p keelson-daemon --example https_floor -- CERTIFICATE KEY ADDRESS`
//!
//! A list is 10,000 objects of 5 KiB, with a limit as many as that. Every write is an event to each watcher.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use clap::Parser;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use keelson_daemon::tls::{Gate, Gathering, ServerTls};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes of an object.
const OBJECT: usize = 5 << 10;
/// Objects in a list without a limit.
const OBJECTS: usize = 10_000;
/// Bytes of a list that are handed over together.
const PIECE: usize = 64 << 10;

#[derive(Parser)]
struct Args {
    certificate: PathBuf,
    key: PathBuf,
    address: String,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What everything is answered with.
#[derive(Clone)]
struct Floor {
    object: Bytes,
    piece: Bytes,
    watchers: Arc<Mutex<Vec<UnboundedSender<Bytes>>>>,
}

impl Floor {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        if request.method() != Method::GET {
            request.into_body().collect().await?;
            let told = |watcher: &UnboundedSender<Bytes>| watcher.send(self.object.clone()).is_ok();
            self.watchers.lock().retain(told);
            return Ok(Response::new(Full::new(self.object).boxed_unsync()));
        }
        if query.contains("watch") {
            return Ok(Response::new(self.watch()));
        }
        let limit = query.strip_prefix("limit=").and_then(|limit| limit.parse().ok());
        Ok(Response::new(match limit {
            Some(limit) => self.list(limit),
            None if query.is_empty() => Full::new(self.object).boxed_unsync(),
            None => self.list(OBJECTS),
        }))
    }

    fn list(self, objects: usize) -> Body {
        let left = objects * OBJECT;
        let piece = self.piece;
        List { piece, left }.boxed_unsync()
    }

    fn watch(self) -> Body {
        let (watcher, events) = unbounded_channel();
        self.watchers.lock().push(watcher);
        Events(events).boxed_unsync()
    }
}

/// A list, which repeats one piece.
struct List {
    piece: Bytes,
    left: usize,
}

impl hyper::body::Body for List {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = self.piece.slice(..self.left.min(PIECE));
        self.left -= piece.len();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// What a watcher is told.
struct Events(UnboundedReceiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

async fn serve(floor: Floor, tls: ServerTls, stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(Gathering::new(tls.acceptor().accept(Gate::new(stream)).await?));
    let service = service_fn(move |request| floor.clone().answer(request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(1000);
    let served = builder.serve_connection(stream, service).await;
    served.map_err(anyhow::Error::from_boxed)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let tls = ServerTls::load(&args.certificate, &args.key, None)?;
    let mut object = br#"{"metadata":{"resourceVersion":"1"},"data":""#.to_vec();
    object.resize(OBJECT - 3, b'x');
    object.extend_from_slice(b"\"}\n");
    let floor = Floor {
        piece: object.iter().copied().cycle().take(PIECE).collect(),
        object: object.into(),
        watchers: Arc::default(),
    };
    let listener = TcpListener::bind(&args.address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (floor, tls) = (floor.clone(), tls.clone());
        tokio::spawn(async move {
            if let Err(error) = serve(floor, tls, stream).await {
                eprintln!("{error}");
            }
        });
    }
}
