//! A folder as a store: every verb on it, and what a disk and a kill can do to a backup.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tapline::catalog::{Manifest, backup_prefix, database_prefix};
use tapline::store::folder::{FolderSettings, FolderStore};
use tapline::store::{ErrorKind, PartBody, Store, list_all, list_all_uploads};
use tempfile::TempDir;

use super::world::{Run, TAPLINE, is_long_run, tool};

/// Several parts of an archive that does not compress.
const DUMP: usize = 9_000_000;
/// So little memory that parts are small.
const BACKUP: [&str; 8] = [
    "backup",
    "--memory",
    "20MiB",
    "--compression",
    "none",
    "--no-progress",
    "--retry-for",
    "1s",
];

/// An inventory whose store is a folder beside it.
struct Disk {
    home: TempDir,
    store: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = home.path().join("store");
        std::fs::create_dir(&store).unwrap();
        Self::at(home, store)
    }

    fn at(home: TempDir, store: PathBuf) -> Self {
        let disk = Self { home, store };
        let mut bytes = vec![0; DUMP];
        fastrand::Rng::with_seed(9).fill(&mut bytes);
        std::fs::write(disk.dump(), bytes).unwrap();
        disk.inventory("", &format!("cat {}", disk.dump().display()));
        disk
    }

    /// The inventory, with more keys of the store, and the command that dumps.
    fn inventory(&self, more: &str, script: &str) {
        let text = format!(
            "[stores.disk]\nurl = \"file://{}\"\n{more}\n\
             [databases.x]\nengine = \"command\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n",
            self.store.display()
        );
        std::fs::write(self.home.path().join("tapline.toml"), text).unwrap();
    }

    fn dump(&self) -> PathBuf {
        self.home.path().join("dump")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.home.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        Run::from(self.command(TAPLINE).args(args).output().unwrap())
    }

    /// Runs what must go well.
    fn good(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {}", run.words());
        run.words()
    }

    /// Everything below the store that is of backups, but for folders with nothing in them.
    fn files(&self) -> Vec<PathBuf> {
        fn look(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    look(&path, found);
                } else {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        look(&self.store, &mut found);
        found.retain(|file| !file.display().to_string().contains("/~tapline/"));
        found.sort();
        found
    }

    fn manifests(&self) -> Vec<PathBuf> {
        let mut files = self.files();
        files.retain(|file| file.ends_with("manifest.json"));
        files
    }

    /// Every manifest is of an archive that stock tar makes the dump of; how many there are.
    fn whole_backups(&self) -> Result<usize, String> {
        let manifests = self.manifests();
        for path in &manifests {
            let (text, shown) = (std::fs::read(path).unwrap(), path.display());
            let manifest = Manifest::from_json(&text).map_err(|e| format!("{shown}: {e}"))?;
            let folder = path.parent().unwrap();
            let mut archive = Vec::new();
            for volume in &manifest.archive.volumes {
                let volume = folder.join(&volume.name);
                archive.extend(
                    std::fs::read(&volume).map_err(|e| format!("{}: {e}", volume.display()))?,
                );
            }
            let file = self.home.path().join("archive.tar");
            std::fs::write(&file, archive).unwrap();
            let content = tool(Command::new("tar").arg("-xOf").arg(&file));
            if content != std::fs::read(self.dump()).unwrap() {
                return Err(format!(
                    "{shown} is listed, and its archive is not the dump"
                ));
            }
        }
        Ok(manifests.len())
    }

    /// What `cleanup` makes of it, when all that is there is old: whole backups and nothing else.
    fn tidy_up(&self) -> Result<usize, String> {
        let old = "find store -exec touch -h -d '3 days ago' {} +";
        tool(self.command("sh").args(["-c", old]));
        let cleaned = self.run(&["cleanup", "--confirm"]);
        let whole = self.whole_backups()?;
        let files = self.files();
        if cleaned.code != Some(0) || files.len() != 2 * whole {
            return Err(format!("after cleanup: {files:?}\n{}", cleaned.words()));
        }
        Ok(whole)
    }
}

#[test]
fn every_verb_works_on_a_folder() {
    let disk = Disk::new();
    let checked = disk.good(&["check"]);
    assert!(!checked.contains("warn  store"), "{checked}");
    assert_eq!(disk.files(), Vec::<PathBuf>::new());
    for _ in 0..3 {
        disk.good(&BACKUP);
    }
    assert_eq!(disk.whole_backups(), Ok(3));
    assert!(!disk.store.join(".tapline").exists());
    disk.good(&["status"]);
    disk.good(&["verify", "--all"]);
    disk.good(&["verify", "--quick"]);
    disk.good(&["prune", "x", "--keep-last", "1", "--confirm"]);
    assert_eq!((disk.whole_backups(), disk.files().len()), (Ok(1), 2));
    disk.good(&["restore", "x", "--output", "back"]);
    assert_eq!(
        std::fs::read(disk.home.path().join("back")).unwrap(),
        std::fs::read(disk.dump()).unwrap()
    );
    let shown = disk.good(&["show", "x"]);
    let by_hand = shown
        .lines()
        .find(|line| line.contains("| tar xO"))
        .unwrap();
    tool(disk.command("sh").args(["-c", by_hand]));

    // Without an inventory.
    std::fs::remove_file(disk.home.path().join("tapline.toml")).unwrap();
    let url = format!("file://{}", disk.store.display());
    assert!(disk.good(&["list", &url]).contains("8.6 MiB"));
    disk.good(&["verify", "--from", &url]);
    disk.good(&["restore", "x", "--from", &url, "--output", "again"]);
    assert_eq!(disk.files().len(), 2);
}

#[test]
fn a_dump_that_fails_leaves_nothing_and_no_earlier_backup_is_touched() {
    let disk = Disk::new();
    disk.good(&BACKUP);
    let before = disk.files();
    disk.inventory("", &format!("cat {}; exit 3", disk.dump().display()));
    assert_eq!(disk.run(&BACKUP).code, Some(1));
    assert_eq!(disk.files(), before);
    assert!(!disk.store.join(".tapline").exists());
}

#[test]
fn a_folder_that_is_not_there_is_never_made() {
    let disk = Disk::new();
    std::fs::remove_dir(&disk.store).unwrap();
    let run = disk.run(&BACKUP);
    assert_eq!(run.code, Some(4), "{}", run.words());
    assert!(
        run.words().contains("is its disk mounted?"),
        "{}",
        run.words()
    );
    assert!(!disk.store.exists());

    // A mount point is there without its disk: the marker, which is on the disk, is not.
    std::fs::create_dir(&disk.store).unwrap();
    disk.inventory("marker = \"this-is-it\"", "echo x");
    let run = disk.run(&BACKUP);
    assert_eq!(run.code, Some(4), "{}", run.words());
    assert!(
        run.words().contains("there is no this-is-it in it"),
        "{}",
        run.words()
    );
    assert_eq!(disk.files(), Vec::<PathBuf>::new());
    std::fs::write(disk.store.join("this-is-it"), "").unwrap();
    disk.good(&BACKUP);
}

#[tokio::test]
async fn no_link_and_no_key_leads_out_of_the_folder() {
    let home = tempfile::tempdir().unwrap();
    let (root, outside) = (home.path().join("store"), home.path().join("outside"));
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "sesame").unwrap();
    std::os::unix::fs::symlink(&outside, root.join("x")).unwrap();
    std::os::unix::fs::symlink(outside.join("secret"), root.join("file")).unwrap();
    let store = FolderStore::new(FolderSettings::new(&root));
    for key in [
        "../outside/y",
        "x/y",
        "x/a/y",
        "/y",
        "a/../../outside/y",
        ".tapline/y",
    ] {
        assert!(store.put(key, "bytes".into()).await.is_err(), "{key}");
        assert!(!matches!(store.head(key).await, Ok(Some(_))), "{key}");
        let _ = store.delete(key).await;
    }
    for key in ["x/secret", "file", "../outside/secret"] {
        assert!(store.get(key, None).await.is_err(), "{key}");
        let _ = store.delete(key).await;
    }
    assert_eq!(list_all(&store, "").await.unwrap(), []);
    let left: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"sesame");
}

/// Parts of one size have their places, whatever the order; a last part that is the first to come
/// says the wrong size, and what is joined is right all the same.
#[tokio::test]
async fn parts_in_any_order_are_one_object() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(FolderSettings::new(folder.path()));
    let parts = [
        vec![b'a'; 3000],
        vec![b'b'; 3000],
        vec![b'c'; 3000],
        vec![b'd'; 7],
    ];
    let orders: [&[usize]; 6] = [
        &[1, 2, 3, 0],
        &[3, 2, 1, 0],
        &[0, 1, 2, 3],
        &[3, 0, 3, 1, 2],
        &[2, 3, 1, 1, 0],
        &[1, 3, 2, 0, 2],
    ];
    for (n, order) in orders.into_iter().enumerate() {
        let key = format!("k/{n}");
        let upload = store.create_upload(&key, "id").await.unwrap();
        let mut receipts = BTreeMap::new();
        for at in order {
            let number = u32::try_from(at + 1).unwrap();
            let body = PartBody::from(bytes::Bytes::from(parts[*at].clone()));
            let receipt = store.put_part(&upload, number, body, None).await.unwrap();
            receipts.insert(number, receipt);
        }
        let receipts: Vec<_> = receipts.into_values().collect();
        store
            .complete_upload(&upload, &receipts, None)
            .await
            .unwrap();
        let stored = std::fs::read(folder.path().join(&key)).unwrap();
        assert!(
            stored == parts.concat(),
            "{order:?}: {} bytes",
            stored.len()
        );
    }
    assert!(list_all_uploads(&store, "").await.unwrap().is_empty());
}

/// A lease is renewed so: were it gone for an instant, another run would take it.
#[tokio::test]
async fn an_object_that_is_replaced_is_there_all_the_while() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(FolderSettings::new(folder.path()));
    store.put("n/lease", "0".into()).await.unwrap();
    let (path, over) = (
        folder.path().join("n/lease"),
        Arc::new(AtomicBool::new(false)),
    );
    let seen = over.clone();
    let look = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            assert!(!std::fs::read(&path).expect("it is there").is_empty());
        }
    });
    for n in 1..200 {
        store
            .replace("n/lease", format!("{n}").into())
            .await
            .unwrap();
    }
    over.store(true, Ordering::Relaxed);
    look.join().unwrap();
    assert_eq!(
        std::fs::read(folder.path().join("n/lease")).unwrap(),
        b"199"
    );
    assert!(list_all_uploads(&store, "").await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_tapline_object_is_left_alone_and_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(FolderSettings::new(folder.path()));
    for other in [".snapshot/a", "lost+found/b", ".Trash-1000/c", "notes/d"] {
        let path = folder.path().join(other);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    store.put("a-b", "1".into()).await.unwrap();
    store.put("a/c", "2".into()).await.unwrap();
    let keys = list_all(&store, "").await.unwrap();
    let keys: Vec<_> = keys.into_iter().map(|object| object.key).collect();
    assert_eq!(keys, ["a-b", "a/c", "notes/d"]);
    let taken = store.put("notes", "3".into()).await.unwrap_err();
    assert!(
        matches!(taken.kind(), ErrorKind::AlreadyExists | ErrorKind::Invalid),
        "{taken}"
    );
    let id = tapline::catalog::BackupId::now();
    let of_x = store.list(&backup_prefix("x", &id), None).await.unwrap();
    assert!(of_x.items.is_empty() && store.list(&database_prefix("x"), None).await.is_ok());
}

/// A disk of 6 MiB for an archive of 9 MB, and a file system that takes no file of that size.
#[test]
fn a_full_disk_ends_a_backup_and_gets_its_room_back() {
    let script = "mount -t tmpfs -o size=6M none store && \"$0\" \"$@\"; \
                  code=$?; find store -type f -not -path '*/~tapline/*'; exit $code";
    let disk = Disk::new();
    let full = disk
        .command("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, TAPLINE])
        .args(BACKUP)
        .output()
        .unwrap();
    let full = Run::from(full);
    assert_eq!(
        (full.code, full.stdout.contains("store/")),
        (Some(4), false),
        "{}",
        full.words()
    );
    assert!(full.stderr.contains("No space left") && full.stderr.contains("free some room"));

    let limited = disk
        .command("sh")
        .args(["-c", "ulimit -f 4000; \"$0\" \"$@\"", TAPLINE])
        .args(BACKUP)
        .output()
        .unwrap();
    let limited = Run::from(limited);
    assert_eq!(limited.code, Some(4), "{}", limited.words());
    assert!(limited.stderr.contains("max_parts"), "{}", limited.words());
    assert_eq!(disk.files(), Vec::<PathBuf>::new());
    // Volumes that fit are what it advises.
    disk.inventory("max_parts = 2", &format!("cat {}", disk.dump().display()));
    disk.good(&BACKUP);
    assert_eq!(disk.whole_backups(), Ok(1));
}

/// One call of the kernel's that changes a disk, at which something happens.
struct Cell {
    call: &'static str,
    nth: usize,
    for_ever: bool,
    errno: &'static str,
}

impl Cell {
    fn inject(&self) -> String {
        let Self {
            call, nth, errno, ..
        } = self;
        let on = if self.for_ever { "+" } else { "" };
        format!("inject={call}:error={errno}:when={nth}{on}")
    }
}

/// Each with how many of them a backup makes that differ; `tests/long.sh` tries twice as many.
const CALLS: [(&str, usize); 7] = [
    ("mkdirat", 4),
    ("pwrite64", 4),
    ("fdatasync", 4),
    ("fsync", 5),
    ("ftruncate", 1),
    ("linkat", 2),
    ("unlinkat", 4),
];
const ERRNOS: [&str; 4] = ["EIO", "ESTALE", "ENOSPC", "EACCES"];

/// Whatever the disk says to whichever of its calls: a whole backup and exit 0, or none, and a line
/// where something is left.
#[test]
fn a_disk_that_fails_at_any_call_leaves_a_backup_or_nothing_or_a_word() {
    let mut cells = Vec::new();
    for (call, most) in CALLS {
        let most = if is_long_run() { 2 * most } else { most };
        for (row, errno) in ERRNOS.into_iter().enumerate() {
            for nth in 1..=most {
                for for_ever in [false, true] {
                    let cell = Cell {
                        call,
                        nth,
                        for_ever,
                        errno,
                    };
                    cells.push((row + nth + 2 * usize::from(for_ever), cell));
                }
            }
        }
    }
    let cells = super::matrix::chosen(4, cells);
    let (count, start) = (cells.len(), Instant::now());
    let cells = Mutex::new(cells);
    let outcomes = Mutex::new(BTreeMap::<&str, usize>::new());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(cell) = ({ cells.lock().unwrap().pop() }) else {
                        return;
                    };
                    match meet(&cell) {
                        Ok(outcome) => *outcomes.lock().unwrap().entry(outcome).or_default() += 1,
                        Err(why) => wrong
                            .lock()
                            .unwrap()
                            .push(format!("{}: {why}", cell.inject())),
                    }
                }
            });
        }
    });
    println!(
        "{count} cells in {:.0?}: {:?}",
        start.elapsed(),
        outcomes.lock().unwrap()
    );
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn meet(cell: &Cell) -> Result<&'static str, String> {
    let disk = Disk::new();
    let run = disk
        .command("timeout")
        .args([
            "--signal=KILL",
            "60",
            "strace",
            "-f",
            "-qq",
            "-o",
            "trace",
            "-e",
        ])
        .arg(format!("trace={}", cell.call))
        .args(["-e", &cell.inject(), TAPLINE])
        .args(BACKUP)
        .output()
        .unwrap();
    let run = Run::from(run);
    let (whole, files) = (disk.whole_backups()?, disk.files());
    let told = run.words().contains("tapline cleanup");
    match (run.code, whole) {
        (Some(0), 1) if files.len() == 2 => Ok("stored"),
        // The disk that removes nothing for ever keeps an upload beside a good backup.
        (Some(0), 1) if told && cell.call == "unlinkat" => {
            disk.tidy_up().map(|_| "stored, and told")
        }
        (Some(code), 0) if code != 0 && files.is_empty() => Ok("absent"),
        (Some(code), _) if code != 0 && told => disk.tidy_up().map(|_| "told"),
        (code, whole) => Err(format!(
            "exit {code:?}, {whole} backups, {files:?}\n{}",
            run.words()
        )),
    }
}

/// SIGKILL at random instants: what is listed is whole, and `cleanup` removes the rest.
#[test]
fn a_kill_at_any_instant_leaves_whole_backups_in_the_folder_and_what_cleanup_removes() {
    let disk = Disk::new();
    let start = Instant::now();
    disk.good(&BACKUP);
    let time = start.elapsed();
    let kills = std::env::var("TAPLINE_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let mut killed = 0;
    for _ in 0..kills {
        let mut running = disk
            .command(TAPLINE)
            .args(BACKUP)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs_f64(
            time.as_secs_f64() * 1.1 * fastrand::f64(),
        ));
        if running.try_wait().unwrap().is_none() {
            killed += 1;
            running.kill().unwrap();
        }
        running.wait().unwrap();
        let whole = disk.whole_backups().unwrap();
        assert_eq!(disk.tidy_up().unwrap(), whole);
        disk.good(&["verify", "--all"]);
    }
    println!(
        "{killed} of {kills} killed, {} listed and whole",
        disk.manifests().len()
    );
    assert!(killed > 0);
}
