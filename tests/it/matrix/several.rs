//! The same with two stores and encryption: whatever a request to one of them meets, and at
//! whichever request the backup is ended, each store holds a whole backup or nothing.

use std::process::Stdio;
use std::time::Duration;

use tapline::catalog::Manifest;
use tapline::s3_server::{Fault, S3Server};
use tapline::store::{Checksum, ChecksumKind};

use super::super::world::{Run, World, backup_keys, signal, store, wait_until};
use super::backup::{dump, options};
use super::cells::{After, BackupCell, FAULTS, Often, STEPS};

const LONG_AGO: Duration = Duration::from_hours(72);
const HELD: Duration = Duration::from_millis(400);
/// Nobody has its private half.
const PUBLIC: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

const BOTH: &str = "stored: exit 0, a whole backup in both stores";
const ONE: &str = "copy missing: exit not 0, a whole backup in one store and nothing in the other";
const NONE: &str = "absent: exit not 0, nothing in either";
const TOLD: &str =
    "told: exit not 0, and a line says what is left in the store and what removes it";

/// Two stores, each a server of its own.
struct Pair {
    world: World,
    second: S3Server,
}

impl Pair {
    fn new(status: u8) -> Self {
        let world = World::new("");
        let second = world.block_on(S3Server::start(false)).unwrap();
        let offsite = store(&second.endpoint()).replace("[stores.s3]", "[stores.offsite]");
        world.inventory(&format!(
            "{offsite}[run]\nwait_for_store = \"5s\"\n[databases.x]\n\
             engine = \"command\"\ncommand = [\"sh\", \"-c\", \"cat {}; exit {status}\"]\n\
             stores = [\"s3\", \"offsite\"]\nencrypt_to = [\"{PUBLIC}\"]\n",
            dump().display()
        ));
        Self { world, second }
    }

    fn servers(&self) -> [&S3Server; 2] {
        [&self.world.server, &self.second]
    }

    /// What `cleanup` leaves in both stores.
    fn tidy_up(&self) -> Result<[bool; 2], String> {
        for server in self.servers() {
            server.faults().clear();
            server.store().age_by(LONG_AGO);
        }
        let cleaned = self.world.quietly(&["cleanup", "--confirm"]);
        if cleaned.code != Some(0) {
            return Err(format!("cleanup: {}", cleaned.words()));
        }
        let [first, second] = self.servers().map(holds);
        Ok([first?, second?])
    }
}

/// Whether a store has a whole backup, or else nothing; anything else is an error.
fn holds(server: &S3Server) -> Result<bool, String> {
    let (store, keys) = (server.store(), backup_keys(server));
    let open = store.open_uploads();
    if keys.is_empty() && open == 0 {
        return Ok(false);
    }
    let state = format!("{keys:?}, {open} open uploads");
    let manifest = keys
        .iter()
        .find_map(|key| key.strip_suffix("manifest.json"));
    let folder = manifest.ok_or_else(|| format!("no backup, and {state}"))?;
    let text = store.read(&format!("{folder}manifest.json")).unwrap();
    let manifest = Manifest::from_json(&text).map_err(|error| error.to_string())?;
    for volume in &manifest.archive.volumes {
        let bytes = store
            .read(&format!("{folder}{}", volume.name))
            .unwrap_or_default();
        let digest = Checksum::of(ChecksumKind::Crc64Nvme, &bytes).to_base64();
        if (bytes.len() as u64, digest) != (volume.size, volume.crc64nvme.clone()) {
            return Err(format!(
                "{} is not what was put there; {state}",
                volume.name
            ));
        }
    }
    if keys.len() != manifest.keys().len() || open > 0 {
        return Err(format!("more than a backup: {state}"));
    }
    Ok(true)
}

struct Cell {
    /// The store at which it happens.
    at: usize,
    of: BackupCell,
}

impl Cell {
    /// A fault for ever at one of the stores and once at the other, in turn: that each request of one
    /// store ends well is tried apart.
    fn all() -> Vec<(usize, Self)> {
        let mut cells = Vec::new();
        for (row, fault) in FAULTS.into_iter().enumerate() {
            for (column, step) in STEPS.into_iter().enumerate() {
                // A small dump is put by the same requests in both.
                if step.after == After::Small && step.name == "small manifest" {
                    continue;
                }
                let first = (row + column) % 2;
                for (at, often) in [(first, Often::ForEver), (1 - first, Often::Once)] {
                    let of = BackupCell { step, fault, often };
                    let turn = usize::from(often == Often::Once);
                    cells.push((row + column + 2 * turn, Self { at, of }));
                }
            }
        }
        cells
    }

    fn name(&self) -> String {
        format!("store {}: {}", self.at + 1, self.of.name())
    }
}

#[test]
fn each_of_two_stores_holds_a_backup_or_nothing_whatever_a_request_to_one_meets() {
    let good = Pair::new(0);
    let run = good.world.quietly(&options());
    assert_eq!(run.code, Some(0), "{}", run.words());
    assert_eq!(good.servers().map(holds), [Ok(true), Ok(true)]);
    let cells = super::chosen(10, Cell::all());
    super::run_all("two stores", cells, Cell::name, try_cell);
}

fn try_cell(cell: &Cell) -> Result<&'static str, String> {
    let silence = if cell.of.is_silent() {
        super::SILENCE
    } else {
        ""
    };
    let fails = cell.of.step.after == After::DumpFailed;
    let pair = Pair::new(u8::from(fails));
    let file = pair.world.path("tapline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("region =", &format!("{silence}region ="));
    let text = match cell.of.step.after {
        After::Small => {
            text.replace(&format!("cat {}; exit 0", dump().display()), "echo small")
                + "expected_size = 6\n"
        }
        _ => text,
    };
    std::fs::write(&file, text).unwrap();
    cell.of.script(pair.servers()[cell.at].faults());
    let run = pair.world.at_most(super::PATIENCE, &options());
    let words = run.words();
    if run.code == Some(137) {
        return Err(format!("it never ended\n{words}"));
    }
    let other = holds(pair.servers()[1 - cell.at])?;
    if other == fails {
        return Err(format!("the other store has a backup: {other}\n{words}"));
    }
    let outcome = match (holds(pair.servers()[cell.at]), run.code) {
        (Ok(true), Some(0)) if !fails => return Ok(BOTH),
        (Ok(false), Some(1..)) => return Ok(if fails { NONE } else { ONE }),
        (outcome, code) => format!("exit {code:?}: {outcome:?}\n{words}"),
    };
    let is_told = run.code != Some(0) && words.contains("tapline cleanup");
    if !is_told || cell.of.often == Often::Once {
        return Err(outcome);
    }
    pair.tidy_up().map(|_| TOLD)
}

struct Kill {
    signal: &'static str,
    at: usize,
    request: usize,
    held: Fault,
}

impl Kill {
    fn name(&self) -> String {
        let held = match self.held {
            Fault::Late { .. } => "before",
            _ => "after",
        };
        format!(
            "SIG{} {held} request {} of store {}",
            self.signal,
            self.request,
            self.at + 1
        )
    }
}

#[test]
fn a_signal_at_any_request_to_either_store_leaves_a_backup_or_nothing_in_each() {
    let good = Pair::new(0);
    assert_eq!(good.world.quietly(&options()).code, Some(0));
    let mut kills = Vec::new();
    for (at, server) in good.servers().into_iter().enumerate() {
        for request in 1..=server.log().all().len() {
            let held = [Fault::Late { by: HELD }, Fault::SlowReply { after: HELD }];
            for (row, signal) in ["TERM", "KILL"].into_iter().enumerate() {
                for (column, held) in held.into_iter().enumerate() {
                    let kill = Kill {
                        signal,
                        at,
                        request,
                        held,
                    };
                    kills.push((at + request + row + column, kill));
                }
            }
        }
    }
    let kills = super::chosen(4, kills);
    super::run_all("signals with two stores", kills, Kill::name, kill);
}

fn kill(kill: &Kill) -> Result<&'static str, String> {
    let pair = Pair::new(0);
    let server = pair.servers()[kill.at];
    server.faults().on_any().nth(kill.request).meets(kill.held);
    let mut backup = pair.world.tapline(&options());
    let mut running = backup
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let arrived = server
        .log()
        .wait(Duration::from_mins(1), |asked| asked.len() >= kill.request);
    if !arrived {
        running.kill().unwrap();
        running.wait().unwrap();
        return Err("the request never came".into());
    }
    signal(&running, kill.signal);
    let run = Run::from(running.wait_with_output().unwrap());
    wait_until(|| {
        pair.servers()
            .iter()
            .all(|server| server.log().pending() == 0)
    });
    if kill.signal == "KILL" {
        pair.tidy_up()?;
        return Ok("killed: cleanup leaves a whole backup or nothing in each");
    }
    let [first, second] = pair.servers().map(holds);
    match (run.code, first?, second?) {
        (Some(0), true, true) => Ok(BOTH),
        (Some(1..), true, false) | (Some(1..), false, true) => Ok(ONE),
        (Some(1..), false, false) => Ok(NONE),
        (code, ..) => Err(format!("exit {code:?}\n{}", run.words())),
    }
}
