//! Writes of a connection that go out together.
//!
//! An HTTP/2 connection flushes after every frame of data: each answer, each watch event and each 16 KiB of a list would
//! be a call of the kernel. [`Gathering`] encrypts what is written at once, but lets it wait for what else the
//! connection has to say: until its task comes round once more, or until there is a batch.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

/// Bytes that do not wait for more: three frames of a long answer. What waits should still be in the processor's cache
/// when it goes, and rustls keeps 64 KiB at most.
const BATCH: usize = 40 << 10;

/// The way to the network, below TLS. While it is shut, what was encrypted stays where it is.
#[derive(Debug)]
pub struct Gate<S> {
    stream: S,
    shut: bool,
}

impl<S> Gate<S> {
    /// An open gate.
    pub const fn new(stream: S) -> Self {
        Self { stream, shut: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    // While the gate is shut nobody is woken: whoever shut it comes back to open it.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A connection over TLS whose writes go out together if it speaks HTTP/2.
///
/// A flush of new bytes is answered before they are sent, and the task is woken instead: in its next turn it reads,
/// writes what came in between, and flushes, which sends all of it. That is right for HTTP/2, whose connection is a task
/// that flushes in each of its turns, and for nothing else.
#[derive(Debug)]
pub struct Gathering<S> {
    stream: TlsStream<Gate<S>>,
    gathers: bool,
    /// Bytes that were written and not let through the gate.
    waiting: usize,
    /// Some of them were written since the last flush.
    fresh: bool,
    turn: Turn,
}

/// Where the connection's task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// In the turn that wrote first.
    First,
    /// Still there, and woken for another.
    Woken,
    /// In that other turn.
    Second,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathering<S> {
    /// A connection after its handshake.
    pub fn new(stream: impl Into<TlsStream<Gate<S>>>) -> Self {
        let stream = stream.into();
        let gathers = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Self {
            stream,
            gathers,
            waiting: 0,
            fresh: false,
            turn: Turn::First,
        }
    }

    /// Has `write` write so many bytes: to wait if there is no batch yet and rustls has room, to the network otherwise.
    fn write(
        &mut self,
        bytes: usize,
        mut write: impl FnMut(Pin<&mut TlsStream<Gate<S>>>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.gathers && self.waiting + bytes < BATCH {
            self.stream.get_mut().0.shut = true;
            let written = write(Pin::new(&mut self.stream));
            self.stream.get_mut().0.shut = false;
            if let Poll::Ready(written) = written {
                self.waiting += *written.as_ref().unwrap_or(&0);
                self.fresh = true;
                return Poll::Ready(written);
            }
        }
        self.nothing_waits();
        write(Pin::new(&mut self.stream))
    }

    fn nothing_waits(&mut self) {
        (self.waiting, self.fresh, self.turn) = (0, false, Turn::First);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn == Turn::Woken {
            self.turn = Turn::Second;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(bytes.len(), |stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.write(bytes, |stream| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.fresh && self.turn != Turn::Second {
            (self.fresh, self.turn) = (false, Turn::Woken);
            context.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.nothing_waits();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream as ClientStream;

    use super::*;
    use crate::tls::{ServerTls, client_config};

    type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

    /// A network that counts how often something is sent over it.
    #[derive(Debug)]
    struct Network {
        stream: DuplexStream,
        sent: usize,
    }

    impl AsyncRead for Network {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Network {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.sent += 1;
            Pin::new(&mut self.stream).poll_write(context, bytes)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.sent += 1;
            Pin::new(&mut self.stream).poll_write_vectored(context, slices)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }

    /// The task of a connection, turned by hand.
    struct Task {
        connection: Gathering<Network>,
        woken: Arc<Woken>,
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Task {
        /// A connection that both ends agreed to speak `protocol` over, and the client's end.
        async fn of(protocol: &[u8]) -> Result<(Self, ClientStream<DuplexStream>)> {
            let dir = tempfile::tempdir()?;
            let path = |name: &str| dir.path().join(name);
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
            std::fs::write(path("tls.crt"), made.cert.pem())?;
            std::fs::write(path("tls.key"), made.signing_key.serialize_pem())?;
            let server = ServerTls::load(&path("tls.crt"), &path("tls.key"), None)?;
            let mut client = client_config(None, None)?;
            client.alpn_protocols = vec![protocol.to_vec()];
            let (near, stream) = duplex(1 << 20);
            let connector = TlsConnector::from(Arc::new(client));
            let network = Gate::new(Network { stream, sent: 0 });
            let (connected, accepted) = tokio::join!(
                connector.connect(ServerName::try_from("localhost")?, near),
                server.acceptor().accept(network)
            );
            let mut task = Self {
                connection: Gathering::new(accepted?),
                woken: Arc::default(),
            };
            // What TLS says by itself after a handshake is not of interest.
            task.poll(|connection, context| Pin::new(&mut connection.stream).poll_flush(context))?;
            task.connection.stream.get_mut().0.stream.sent = 0;
            Ok((task, connected?))
        }

        fn poll<T>(
            &mut self,
            step: impl FnOnce(&mut Gathering<Network>, &mut Context<'_>) -> Poll<io::Result<T>>,
        ) -> Result<T> {
            let waker = Waker::from(self.woken.clone());
            match step(&mut self.connection, &mut Context::from_waker(&waker)) {
                Poll::Ready(done) => Ok(done?),
                Poll::Pending => Err("pending".into()),
            }
        }

        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.poll(|connection, context| Pin::new(connection).poll_write(context, bytes))
        }

        fn say(&mut self, words: &str) -> Result<()> {
            assert_eq!(self.write(words.as_bytes())?, words.len());
            self.flush()
        }

        fn flush(&mut self) -> Result<()> {
            self.poll(|connection, context| Pin::new(connection).poll_flush(context))
        }

        /// How a turn begins: there is nothing to read.
        fn turn(&mut self) {
            let mut byte = [0];
            let read = self.poll(|connection, context| {
                Pin::new(connection).poll_read(context, &mut ReadBuf::new(&mut byte))
            });
            assert!(read.is_err(), "nobody wrote anything");
        }

        fn sent(&self) -> usize {
            self.connection.stream.get_ref().0.stream.sent
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    async fn said(client: &mut ClientStream<DuplexStream>, length: usize) -> Result<String> {
        let mut bytes = vec![0; length];
        client.read_exact(&mut bytes).await?;
        Ok(String::from_utf8(bytes)?)
    }

    #[tokio::test]
    async fn what_a_turn_says_is_sent_together_in_the_next() -> Result<()> {
        let (mut task, mut client) = Task::of(b"h2").await?;
        for word in ["one", "two"] {
            task.say(word)?;
        }
        assert_eq!(task.sent(), 0);
        assert!(task.woken() > 0, "somebody has to send it");
        task.turn();
        task.write(b"three")?;
        assert_eq!(task.sent(), 0);
        task.flush()?;
        assert_eq!(task.sent(), 1);
        assert_eq!(said(&mut client, 11).await?, "onetwothree");
        Ok(())
    }

    #[tokio::test]
    async fn a_turn_with_nothing_new_sends_what_waits() -> Result<()> {
        let (mut task, mut client) = Task::of(b"h2").await?;
        task.say("one")?;
        task.flush()?;
        assert_eq!(task.sent(), 1);
        assert_eq!(said(&mut client, 3).await?, "one");
        let woken = task.woken();
        task.turn();
        task.flush()?;
        assert_eq!(
            (task.sent(), task.woken()),
            (1, woken),
            "there was nothing to send"
        );
        Ok(())
    }

    #[tokio::test]
    async fn a_batch_does_not_wait() -> Result<()> {
        let (mut task, mut client) = Task::of(b"h2").await?;
        let frame = "x".repeat(16 << 10);
        for _ in 0..3 {
            assert_eq!(task.write(frame.as_bytes())?, frame.len());
        }
        assert_eq!(task.sent(), 1);
        assert_eq!(said(&mut client, frame.len() * 3).await?, frame.repeat(3));
        Ok(())
    }

    #[tokio::test]
    async fn another_protocol_does_not_wait() -> Result<()> {
        let (mut task, mut client) = Task::of(b"http/1.1").await?;
        task.say("one")?;
        assert_eq!((task.sent(), task.woken()), (1, 0));
        assert_eq!(said(&mut client, 3).await?, "one");
        Ok(())
    }

    #[tokio::test]
    async fn a_connection_that_ends_sends_what_waits() -> Result<()> {
        let (mut task, mut client) = Task::of(b"h2").await?;
        task.say("one")?;
        task.poll(|connection, context| Pin::new(connection).poll_shutdown(context))?;
        let mut all = String::new();
        client.read_to_string(&mut all).await?;
        assert_eq!(all, "one");
        Ok(())
    }
}
