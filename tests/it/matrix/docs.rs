//! `docs/faults.md`, made of the lists that the matrix runs.

use std::fmt::Write;
use std::path::Path;

use super::cells::{BackupCell, FAULTS, OFTEN, READ_FAULTS, READS, STEPS};

fn page() -> String {
    let mut page = String::from(
        "# What a network and a store may do\n\n\
         Made by `tests/it/matrix`, which runs every line of the first table against every line of \
         the second,\nonce and for ever, and with the real binary: all of it in `tests/long.sh`, and in \
         `tests/run.sh` a share,\nanother one each day. A change of the lists is \
         a change of this page:\n`TAPLINE_WRITE_DOCS=1 cargo test --features demo --test it \
         matrix::docs`.\n\n\
         Afterwards there is one of three:\n\n\
         1. exit 0, and a backup that restores equal;\n\
         2. exit not 0, and nothing of it in the store: no object, no open upload;\n\
         3. exit not 0, and a line that says what is left and the command that removes it. Only \
         where the store itself\n   refuses for ever to show or to remove what is there, or never \
         answers the manifest's put.\n\n\
         The same holds when SIGTERM, SIGINT or SIGHUP comes while any of a backup's requests is \
         under way. After a\nSIGKILL what is listed restores equal, and `tapline cleanup` removes \
         the rest.\n\n",
    );
    let backup = BackupCell::all().len();
    writeln!(
        page,
        "## A backup: {backup} cells\n\n| request | what it is |\n|---|---|"
    )
    .unwrap();
    for step in STEPS {
        writeln!(page, "| {} | {} |", step.name, step.what).unwrap();
    }
    page += "\n| fault | what happens |\n|---|---|\n";
    for (name, _, what) in FAULTS {
        writeln!(page, "| {name} | {what} |").unwrap();
    }
    let restore = READS.len() * READ_FAULTS.len() * OFTEN.len();
    writeln!(
        page,
        "\n## A restore: {restore} cells\n\nAfterwards the target is the backup and the exit code 0, \
         or it is what it was before and the exit code is\nnot 0; nothing else is left beside it.\n\n\
         | request | what it is |\n|---|---|"
    )
    .unwrap();
    for (name, what, _) in READS {
        writeln!(page, "| {name} | {what} |").unwrap();
    }
    page += "\n| fault | what happens |\n|---|---|\n";
    for (name, _, what) in READ_FAULTS {
        writeln!(page, "| {name} | {what} |").unwrap();
    }
    let client = super::client::Cell::all().len();
    writeln!(
        page,
        "\n## The client that a restore loads by: {client} cells\n\nIt takes 0, 1, 50, 99 percent or \
         all of a dump and is then ended by SIGKILL, or exits with 3, for\nPostgreSQL \
         (plain and custom dumps) and MariaDB. Afterwards the target is what it was before, the exit \
         code\nis not 0, and nothing is left beside it."
    )
    .unwrap();
    page
}

#[test]
fn the_page_about_faults_is_of_this_matrix() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    if std::env::var_os("TAPLINE_WRITE_DOCS").is_some() {
        std::fs::write(&file, page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), page());
}
