//! The control socket: one JSON object per line in, one per line out. A slow or silent client
//! costs memory for one line, never time. Who finds every place taken waits to be accepted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::clock::now;
use super::poller::{Interest, Poller, Wake};
use crate::error::{Doing, Error, Result};
use crate::model::{Ktime, format_duration};

const SOCKET: &str = "iq.sock";

/// Longest request.
const MOST_REQUEST: usize = 1 << 16;

/// Connections at once; whoever comes then waits.
const MOST_CLIENTS: usize = 64;

/// How long a client may ask, and then take its answer, while others wait for a place. A command
/// of ours has asked as soon as it is connected.
const GRACE: Duration = Duration::from_secs(3);

/// How long a command waits for an answer: several of the longest ticks, and others' requests.
const PATIENCE: Duration = Duration::from_secs(30);

struct Client {
    stream: UnixStream,
    /// When it was accepted, then when it had asked.
    since: Ktime,
    request: Vec<u8>,
    answer: Vec<u8>,
}

pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    clients: BTreeMap<u32, Client>,
    next: u32,
    grace: Duration,
    /// Every place is taken, and others wait.
    full: bool,
    /// Fires when the next one's grace is over while others wait.
    grace_over: TimerFd,
}

/// One line that a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    client: u32,
    pub text: String,
}

impl ControlSocket {
    /// Listens in `run_dir`, mode 0600. The caller holds the instance's lock, so that a socket
    /// found there is a dead one's.
    pub fn listen(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(SOCKET);
        let doing = || format!("listening on {}", path.display());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).doing(doing),
            _ => {}
        }
        let listener = UnixListener::bind(&path).doing(doing)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).doing(doing)?;
        listener.set_nonblocking(true).doing(doing)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let grace_over = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).doing(doing)?;
        Ok(Self {
            listener,
            path,
            clients: BTreeMap::new(),
            next: 0,
            grace: GRACE,
            full: false,
            grace_over,
        })
    }

    /// Has [`Self::accept`] called whenever there is reason to.
    pub fn watch(&self, poller: &Poller) -> Result<()> {
        poller.watch(&self.listener, Wake::Control)?;
        poller.watch(&self.grace_over, Wake::Control)
    }

    /// Takes in whoever waits to connect, as long as there is a place.
    pub fn accept(&mut self, poller: &Poller) -> Result<()> {
        match self.grace_over.wait() {
            Ok(()) | Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno).doing(|| "acknowledging the control socket's timer"),
        }
        loop {
            if self.clients.len() >= MOST_CLIENTS {
                let waits = self.someone_waits()?;
                if !waits || !self.make_room()? {
                    return self.pause(poller, waits);
                }
            }
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.pause(poller, false);
                }
                // Whoever it was has left, or descriptors are short: the next one may succeed.
                Err(error) => {
                    log::debug!("control socket: {error}");
                    return self.pause(poller, false);
                }
            };
            stream
                .set_nonblocking(true)
                .doing(|| "preparing a control connection")?;
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            poller.watch(&stream, Wake::Client(number))?;
            let (request, answer) = (Vec::new(), Vec::new());
            self.clients.insert(
                number,
                Client {
                    stream,
                    since: now()?,
                    request,
                    answer,
                },
            );
        }
    }

    fn someone_waits(&self) -> Result<bool> {
        let mut listener = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut listener, PollTimeout::ZERO) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno).doing(|| "looking who waits to connect"),
        }
    }

    /// Ends the one who has kept others waiting the longest, if its grace is over; else has the
    /// timer say when. Whether there is a place now.
    fn make_room(&mut self) -> Result<bool> {
        let longest = self
            .clients
            .iter()
            .min_by_key(|(_, client)| client.since)
            .map(|(number, client)| (*number, client.since));
        let Some((number, since)) = longest else {
            return Ok(true);
        };
        let left = self.grace.saturating_sub(now()?.since(since));
        if left.is_zero() {
            self.clients.remove(&number);
            return Ok(true);
        }
        self.grace_over
            .set(Expiration::OneShot(left.into()), TimerSetTimeFlags::empty())
            .doing(|| "setting the control socket's timer")?;
        Ok(false)
    }

    /// Stops or goes on listening to who waits to connect.
    fn pause(&mut self, poller: &Poller, full: bool) -> Result<()> {
        if self.full == full {
            return Ok(());
        }
        self.full = full;
        let interest = if full {
            Interest::Nothing
        } else {
            Interest::Read
        };
        poller.change(&self.listener, Wake::Control, interest)
    }

    /// Reads or writes what a client is ready for; the request, once it is whole.
    pub fn serve(&mut self, poller: &Poller, number: u32) -> Result<Option<Request>> {
        let Some(client) = self.clients.get_mut(&number) else {
            return Ok(None);
        };
        let result = if client.answer.is_empty() {
            client.read_line()
        } else {
            client.write_some().map(|done| done.then(String::new))
        };
        match result {
            Ok(None) => Ok(None),
            Ok(Some(text)) if !text.is_empty() => {
                poller.change(&client.stream, Wake::Client(number), Interest::Write)?;
                client.since = now()?;
                Ok(Some(Request {
                    client: number,
                    text,
                }))
            }
            // Answered, closed by the client, or broken: none of it concerns the loop.
            Ok(Some(_)) | Err(_) => {
                self.clients.remove(&number);
                self.pause(poller, false)?;
                Ok(None)
            }
        }
    }

    /// Gives a request its answer, one line; the connection ends once it is sent.
    pub fn answer(&mut self, request: &Request, line: &str) {
        if let Some(client) = self.clients.get_mut(&request.client) {
            client.answer = line.as_bytes().to_vec();
            client.answer.push(b'\n');
        }
    }
}

impl Client {
    /// A whole line, `Some("")` at the end of the stream or if the line has no end.
    fn read_line(&mut self) -> std::io::Result<Option<String>> {
        let mut chunk = [0; 1_024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Some(String::new())),
                Ok(count) => self.request.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some(end) = self.request.iter().position(|byte| *byte == b'\n') {
                let line = self.request[..end].to_vec();
                return Ok(Some(String::from_utf8(line).unwrap_or_default()));
            }
            if self.request.len() > MOST_REQUEST {
                return Ok(Some(String::new()));
            }
        }
    }

    /// Whether all of the answer is sent.
    fn write_some(&mut self) -> std::io::Result<bool> {
        while !self.answer.is_empty() {
            match self.stream.write(&self.answer) {
                Ok(count) => drop(self.answer.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // What stays is removed by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Asks the IQ that runs in `run_dir`; `None` if none does.
///
/// # Errors
/// World's, if it does not answer in time.
pub fn ask(run_dir: &Path, request: &str) -> Result<Option<String>> {
    ask_within(PATIENCE, run_dir, request)
}

fn ask_within(patience: Duration, run_dir: &Path, request: &str) -> Result<Option<String>> {
    let path = run_dir.join(SOCKET);
    let doing = || format!("asking the IQ at {}", path.display());
    let mut stream = match UnixStream::connect(&path) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        stream => stream.doing(doing)?,
    };
    stream.set_read_timeout(Some(patience)).doing(doing)?;
    stream.set_write_timeout(Some(patience)).doing(doing)?;
    stream
        .write_all(format!("{request}\n").as_bytes())
        .doing(doing)?;
    let mut line = String::new();
    match BufReader::new(stream).read_line(&mut line) {
        // The time that SO_RCVTIMEO gives is over: socket(7).
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(Error::world(format!(
                "{}: it has not answered for {}; if it hangs, end it ('systemctl kill --signal=KILL' of its unit, \
                 or 'kill -KILL') and start it again; 'kernloom reset' removes what it enforced all the same",
                doing(),
                format_duration(patience)
            )));
        }
        read => read.doing(doing)?,
    };
    if line.is_empty() {
        return Err(Error::world(format!(
            "{}: it closed the connection; see its log",
            doing()
        )));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves until a request is answered with itself.
    fn echo(socket: &mut ControlSocket, poller: &Poller, requests: usize) {
        let mut answered = 0;
        while answered < requests || !socket.clients.is_empty() {
            for wake in poller.wait().unwrap() {
                match wake {
                    Wake::Control => socket.accept(poller).unwrap(),
                    Wake::Client(number) => {
                        if let Some(request) = socket.serve(poller, number).unwrap() {
                            let text = request.text.clone();
                            socket.answer(&request, &text);
                            answered += 1;
                        }
                    }
                    Wake::Shutdown
                    | Wake::Events
                    | Wake::Tick
                    | Wake::Files
                    | Wake::Watchdog
                    | Wake::Metrics => {
                        unreachable!()
                    }
                }
            }
        }
    }

    /// As an IQ that was stopped: the kernel takes the request in, nobody answers.
    #[test]
    fn who_hangs_is_not_waited_for_without_end_and_the_mend_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = ControlSocket::listen(dir.path()).unwrap();
        let error = ask_within(Duration::from_millis(20), dir.path(), "{}").unwrap_err();
        let told = error.to_string();
        assert!(
            told.contains("it has not answered for 20ms; if it hangs, end it"),
            "{told}"
        );
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn requests_are_answered_whatever_other_clients_do() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ask(dir.path(), "{}").unwrap(), None, "nobody listens");
        let mut socket = ControlSocket::listen(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(SOCKET))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let poller = Poller::new().unwrap();
        socket.watch(&poller).unwrap();
        let connect = || UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        let silent = connect();
        let mut endless = connect();
        endless.write_all(&[b'x'; 2 * MOST_REQUEST]).unwrap();
        let mut half = connect();
        half.write_all(b"{\"half\":").unwrap();
        let path = dir.path().to_owned();
        let asking = std::thread::spawn(move || {
            let answer = ask(&path, "{\"whole\":1}").unwrap();
            drop((silent, endless, half));
            answer
        });
        echo(&mut socket, &poller, 1);
        assert_eq!(asking.join().unwrap().as_deref(), Some("{\"whole\":1}\n"));
        drop(socket);
        assert_eq!(
            ask(dir.path(), "{}").unwrap(),
            None,
            "nobody listens any more"
        );
    }
    /// So many ask at once; what they are told.
    fn at_once(path: &Path, count: usize) -> Vec<Result<Option<String>>> {
        let ask = |number: usize| ask(path, &number.to_string());
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..count).map(|n| scope.spawn(move || ask(n))).collect();
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        })
    }

    #[test]
    fn nobody_is_turned_away_because_many_ask_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut socket = ControlSocket::listen(dir.path()).unwrap();
        socket.grace = Duration::from_secs(3_600);
        let poller = Poller::new().unwrap();
        socket.watch(&poller).unwrap();
        // Connected before anybody is accepted, one more than there are places; none of them asks yet.
        let connect = |_| UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        let mut early: Vec<_> = (0..=MOST_CLIENTS).map(connect).collect();
        socket.accept(&poller).unwrap();
        assert_eq!(socket.clients.len(), MOST_CLIENTS);
        let path = dir.path().to_owned();
        let asking = std::thread::spawn(move || {
            for stream in &mut early {
                stream.write_all(b"early\n").unwrap();
            }
            let told = at_once(&path, 2 * MOST_CLIENTS);
            (early, told)
        });
        echo(&mut socket, &poller, 3 * MOST_CLIENTS + 1);
        let (early, told) = asking.join().unwrap();
        for stream in early {
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            assert_eq!(line, "early\n");
        }
        for (number, told) in told.into_iter().enumerate() {
            assert_eq!(told.unwrap(), Some(format!("{number}\n")));
        }
    }

    #[test]
    fn who_never_asks_makes_room_for_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let mut socket = ControlSocket::listen(dir.path()).unwrap();
        socket.grace = Duration::from_millis(1);
        let poller = Poller::new().unwrap();
        socket.watch(&poller).unwrap();
        let connect = |_| UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        let idle: Vec<_> = (0..MOST_CLIENTS + 30).map(connect).collect();
        let path = dir.path().to_owned();
        let asking = std::thread::spawn(move || {
            let told = ask(&path, "me too");
            drop(idle);
            told
        });
        echo(&mut socket, &poller, 1);
        assert_eq!(asking.join().unwrap().unwrap().as_deref(), Some("me too\n"));
    }
}
