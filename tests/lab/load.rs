//! Benign load: real curl clients from the office, all behind one address per family, counted.
//!
//! Each client is one curl that asks a fixed number of times at a fixed pace and opens a new
//! connection for every request. The number is fixed so that the count is exact: what is not
//! answered with status 200 at the end is lost, whatever the reason.

use std::time::Duration;

use super::process::Process;
use super::topology::office_host;
use super::wait::wait_until;
use super::{Family, Lab, Result};

/// A request older than this is lost.
const PATIENCE_S: &str = "5";

/// How many clients ask how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadPlan {
    /// Host of the office that is the first client.
    pub(crate) first: u8,
    /// Clients per family, each the next host: no more than the office has.
    pub(crate) clients: u8,
    pub(crate) families: &'static [Family],
    /// Requests of each client.
    pub(crate) requests: u32,
    /// Requests of each client per minute.
    pub(crate) per_minute: u32,
}

/// Requests counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    /// Requests that ended, one way or the other.
    pub(crate) sent: u64,
    /// Of those, with status 200.
    pub(crate) answered: u64,
    /// Of those, not.
    pub(crate) lost: u64,
    /// The longest an answered one took.
    pub(crate) slowest_s: f64,
}

/// Running clients; they end on drop.
pub(crate) struct Load {
    plan: LoadPlan,
    clients: Vec<Client>,
}

struct Client {
    family: Family,
    curl: Process,
    read: usize,
    tally: Tally,
}

impl Load {
    /// Starts all clients.
    pub(crate) fn start(lab: &Lab, plan: LoadPlan) -> Result<Self> {
        let mut clients = Vec::new();
        let end = plan.first.saturating_add(plan.clients);
        for index in plan.first..end.min(lab.office_hosts()) {
            for family in plan.families {
                let curl = start_curl(lab, plan, *family, index)?;
                clients.push(Client {
                    family: *family,
                    curl,
                    read: 0,
                    tally: Tally::default(),
                });
            }
        }
        Ok(Self { plan, clients })
    }

    /// The count so far: of one family, or of both.
    pub(crate) fn tally(&mut self, family: Option<Family>) -> Tally {
        let wanted = |client: &&mut Client| family.is_none_or(|family| family == client.family);
        self.clients
            .iter_mut()
            .filter(wanted)
            .fold(Tally::default(), |sum, client| {
                client.catch_up();
                sum.plus(client.tally)
            })
    }

    /// Whether every client has made all its requests.
    pub(crate) fn ended(&mut self) -> Result<bool> {
        let mut all = true;
        for client in &mut self.clients {
            all &= client.curl.ended()?.is_some();
        }
        Ok(all)
    }

    /// Waits until every client has made all its requests. Requests never made count as lost.
    pub(crate) fn finish(&mut self, limit: Duration) -> Result<Tally> {
        wait_until(limit, "the end of the benign load", || self.ended())?;
        for client in &mut self.clients {
            client.curl.wait(limit)?;
        }
        Ok(self.settle())
    }

    /// Ends the clients now. A request under way is neither answered nor lost.
    pub(crate) fn stop(&mut self) -> Result<Tally> {
        self.clients
            .iter_mut()
            .try_for_each(|client| client.curl.stop().map(drop))?;
        Ok(self.tally(None))
    }

    fn settle(&mut self) -> Tally {
        let mut tally = self.tally(None);
        let planned = self
            .clients
            .iter()
            .map(|_| u64::from(self.plan.requests))
            .sum::<u64>();
        tally.lost += planned.saturating_sub(tally.sent);
        tally.sent = tally.sent.max(planned);
        tally
    }
}

impl Client {
    fn catch_up(&mut self) {
        let fresh = self.curl.lines_from(self.read);
        self.read += fresh.len();
        for line in fresh {
            self.tally = self.tally.plus(outcome(&line.text));
        }
    }
}

impl Tally {
    pub(crate) fn plus(self, more: Self) -> Self {
        Self {
            sent: self.sent + more.sent,
            answered: self.answered + more.answered,
            lost: self.lost + more.lost,
            slowest_s: self.slowest_s.max(more.slowest_s),
        }
    }
}

/// One line of curl, `200 0.001234`. Any other line, e.g. a complaint, says nothing about a request.
fn outcome(line: &str) -> Tally {
    match line
        .split_once(' ')
        .map(|(status, time)| (status, time.parse::<f64>()))
    {
        Some(("200", Ok(slowest_s))) => Tally {
            sent: 1,
            answered: 1,
            lost: 0,
            slowest_s,
        },
        Some((_, Ok(_))) => Tally {
            sent: 1,
            lost: 1,
            ..Tally::default()
        },
        _ => Tally::default(),
    }
}

fn start_curl(lab: &Lab, plan: LoadPlan, family: Family, index: u8) -> Result<Process> {
    let (v4, v6) = office_host(index);
    let (from, to) = match family {
        Family::V4 => (v4.to_string(), lab.server().v4.to_string()),
        Family::V6 => (v6.to_string(), format!("[{}]", lab.server().v6)),
    };
    let url = format!("http://{to}/[1-{}]", plan.requests);
    let pace = format!("{}/m", plan.per_minute);
    let mut command = lab.office()?.command("curl");
    command.args([
        "-s",
        "--noproxy",
        "*",
        "--interface",
        &from,
        "--rate",
        &pace,
    ]);
    command.args([
        "--max-time",
        PATIENCE_S,
        "-H",
        "Connection: close",
        "-o",
        "/dev/null",
    ]);
    // To standard error, which curl does not buffer: the count is wanted while it runs.
    command.args(["-w", "%{stderr}%{http_code} %{time_total}\n", &url]);
    Process::spawn(command)
}

#[cfg(test)]
mod tests {
    use super::outcome;

    #[test]
    fn a_request_counts_once_and_a_complaint_not_at_all() {
        let counts = |line| {
            let tally = outcome(line);
            (tally.sent, tally.answered, tally.lost)
        };
        assert_eq!(counts("200 0.001234"), (1, 1, 0));
        assert_eq!(counts("000 5.000912"), (1, 0, 1));
        assert_eq!(counts("502 0.002000"), (1, 0, 1));
        assert_eq!(counts("Warning: something"), (0, 0, 0));
    }
}
