//! What the README says of keys, signatures and copies is typed as it stands there.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tapline::catalog::Manifest;

use super::world::{TAPLINE, World, tool};

/// The id that the README has for one.
const ID: &str = "20261123T180327Z-k3f9ax";

/// The text below a headline, up to the next one.
fn section(title: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, rest) = text.split_once(&format!("\n### {title}\n")).unwrap();
    let end = rest.find("\n### ").or(rest.find("\n## ")).unwrap();
    rest[..end].to_owned()
}

/// The blocks of a section in one language.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let blocks = section.split(&begin).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// A world whose store is a folder, and in whose `PATH` are tapline, an `aws` that reads from the
/// folder, and a `psql` that keeps what it gets.
struct Desk(World);

impl Desk {
    fn new() -> Self {
        let world = World::new("");
        for folder in ["bin", "main", "offsite"] {
            std::fs::create_dir(world.path(folder)).unwrap();
        }
        symlink(TAPLINE, world.path("bin/tapline")).unwrap();
        // `aws s3 cp FROM -` and `aws s3 cp --recursive … FROM .`
        let aws = "#!/bin/sh\nfor from; do case $from in s3://*) break;; esac; done\n\
                   from=main/${from#s3://my-bucket/backups/}\n\
                   if [ -d \"$from\" ]; then cp \"$from\"/manifest.json* .; else cat \"$from\"; fi\n";
        world.write("bin/aws", aws);
        world.write("bin/psql", "#!/bin/sh\ncat > loaded\n");
        for program in ["aws", "psql"] {
            world.executable(&format!("bin/{program}"));
        }
        Self(world)
    }

    fn inventory(&self, toml: &str) {
        let folder = |name: &str| format!("file://{}", self.0.path(name).display());
        let mut text = toml.to_owned();
        if !text.contains("[stores.main]") {
            text = format!("[stores.main]\nurl = \"s3://my-bucket/backups\"\n{text}");
        }
        let text = text.replace("s3://my-bucket/backups", &folder("main"));
        let text = text.replace("file:///mnt/offsite", &folder("offsite"));
        let database = "[databases.shop]\nengine = \"command\"\ncommand = [\"seq\", \"1000\"]\n\
                        restore = [\"sh\", \"-c\", \"cat > loaded\"]\n";
        self.0.write("tapline.toml", format!("{text}\n{database}"));
    }

    /// A line as it is typed, with the id of the backup that is there.
    fn typed(&self, line: &str) -> String {
        let id = self.id().unwrap_or_default();
        // What a command's target holds nobody can tell but the command.
        let overwrite = "tapline restore shop --overwrite ";
        let line = line
            .replace(ID, &id)
            .replace("tapline restore shop ", overwrite);
        println!("$ {line}");
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", self.0.path("bin").display());
        let mut shell = Command::new("bash");
        let shell = shell
            .args(["-eo", "pipefail", "-c", &line])
            .env("PATH", path);
        String::from_utf8(tool(shell.current_dir(self.0.folder.path()))).unwrap()
    }

    fn id(&self) -> Option<String> {
        let backups = std::fs::read_dir(self.0.path("main/shop")).ok()?.flatten();
        let ids = backups.map(|one| one.file_name().into_string().unwrap());
        ids.max()
    }

    fn loaded(&self) -> usize {
        let text = std::fs::read_to_string(self.0.path("loaded")).unwrap();
        std::fs::remove_file(self.0.path("loaded")).unwrap();
        text.lines().count()
    }
}

#[test]
fn what_it_says_of_encryption() {
    let (desk, section) = (Desk::new(), section("Encryption"));
    let shell = blocks(&section, "sh");
    let line = desk.typed(&shell[0]);
    let public = line.split('"').nth(1).unwrap();
    desk.typed("ssh-keygen -q -t ed25519 -N '' -f ssh && cp ssh.pub recipients.txt");
    let ssh = std::fs::read_to_string(desk.0.path("ssh.pub")).unwrap();
    let toml = blocks(&section, "toml")[0].replace("age1…", public);
    desk.inventory(&toml.replace("ssh-ed25519 AAAA…", ssh.trim()));
    desk.typed("tapline backup");
    for line in shell[1].lines().filter(|line| !line.is_empty()) {
        desk.typed(line);
        if line.contains("restore") || line.contains("psql") {
            assert_eq!(desk.loaded(), 1000, "{line}");
        }
    }
    // What a volume's digest is.
    let manifest = desk.typed("cat main/shop/*/manifest.json");
    let manifest = Manifest::from_json(manifest.as_bytes()).unwrap();
    let digest = manifest.archive.volumes[0].digest.as_ref().unwrap();
    let begin = section.find("`split -b").unwrap() + 1;
    let split = section[begin..].split('`').next().unwrap();
    let split = split.replace("SLICE", &digest.slice.to_string());
    let said = desk.typed(&split.replace("shop.tar.gz.age", "main/shop/*/shop.tar.gz.age"));
    assert!(said.starts_with(&digest.sha256), "{said}");
}

#[test]
fn what_it_says_of_signatures() {
    let (desk, section) = (Desk::new(), section("Signatures"));
    let shell = blocks(&section, "sh");
    let lines = desk.typed(&shell[0]);
    let public = lines.lines().nth(1).unwrap().split('"').nth(1).unwrap();
    desk.inventory(&blocks(&section, "toml")[0].replace("RWQ…", public));
    desk.typed("tapline backup");
    desk.typed("tapline verify");
    let mut said = String::new();
    for line in shell[1].lines() {
        said = desk.typed(&line.replace("RWQ…", public));
    }
    assert!(
        said.contains(&format!("tapline shop@{}", desk.id().unwrap())),
        "{said}"
    );
}

#[test]
fn what_it_says_of_a_second_copy() {
    let (desk, section) = (Desk::new(), section("A second copy"));
    desk.inventory(&blocks(&section, "toml")[0]);
    desk.typed("tapline backup");
    let copies = |folder: &str| std::fs::read_dir(desk.0.path(folder)).unwrap().count();
    assert_eq!((copies("main/shop"), copies("offsite/shop")), (1, 1));
    std::fs::remove_dir_all(desk.0.path("offsite/shop")).unwrap();
    for line in blocks(&section, "sh")[0].lines() {
        desk.typed(line);
        assert_eq!(copies("offsite/shop"), 1, "{line}");
    }
}
