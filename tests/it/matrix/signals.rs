//! Every request of a backup is the moment of every signal.

use std::process::Stdio;
use std::time::Duration;

use tapline::s3_server::Fault;

use super::super::world::{Run, signal, wait_until};
use super::backup::{dump, options, world};
use super::judge::{Leftovers, judge, let_go, tidy_up};

const SIGNALS: [&str; 4] = ["TERM", "INT", "HUP", "KILL"];
/// How long the request is held, so that the signal comes while it is under way.
const HELD: Duration = Duration::from_millis(400);

struct Kill {
    signal: &'static str,
    /// Which request, counted from 1 in the order in which they arrive.
    request: usize,
    /// What it was in a backup that was left alone.
    what: String,
    held: Fault,
}

impl Kill {
    fn name(&self) -> String {
        let held = match self.held {
            Fault::Late { .. } => "before it is done",
            _ => "when it is done",
        };
        format!(
            "SIG{} at request {} ({}), {held}",
            self.signal, self.request, self.what
        )
    }
}

#[test]
fn a_signal_at_any_request_leaves_a_backup_or_nothing() {
    let good = world(0, "");
    assert_eq!(good.quietly(&options()).code, Some(0));
    let asked = good.server.log().all();
    let mut kills = Vec::new();
    let held = [Fault::Late { by: HELD }, Fault::SlowReply { after: HELD }];
    for (row, signal) in SIGNALS.into_iter().enumerate() {
        for (at, asked) in asked.iter().enumerate() {
            for (column, held) in held.into_iter().enumerate() {
                let part = asked
                    .part
                    .map(|part| format!(" {part}"))
                    .unwrap_or_default();
                let what = format!("{:?}{part}", asked.op);
                let kill = Kill {
                    signal,
                    request: at + 1,
                    what,
                    held,
                };
                kills.push((row + at + column, kill));
            }
        }
    }
    let kills = super::chosen(4, kills);
    super::run_all("signals", kills, Kill::name, kill);
}

fn kill(kill: &Kill) -> Result<&'static str, String> {
    let world = world(0, "");
    world
        .server
        .faults()
        .on_any()
        .nth(kill.request)
        .meets(kill.held);
    let mut backup = world.tapline(&options());
    let mut running = backup
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let arrived = world
        .server
        .log()
        .wait(Duration::from_mins(1), |asked| asked.len() >= kill.request);
    if !arrived {
        running.kill().unwrap();
        running.wait().unwrap();
        return Err("the request never came".into());
    }
    signal(&running, kill.signal);
    let run = Run::from(running.wait_with_output().unwrap());
    wait_until(|| world.server.log().pending() == 0);
    if kill.signal == "KILL" {
        return match tidy_up(&world, dump())? {
            0 => Ok("killed: nothing that is listed, and cleanup removes the rest"),
            _ => Ok("killed: what is listed is whole, and cleanup removes the rest"),
        };
    }
    let outcome = judge(&world, dump(), &run, Leftovers::AreWrong)?;
    let_go(&world, outcome)
}
