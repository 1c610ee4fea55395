//! What the matrix is made of: the requests, the faults, and how often.

use std::time::Duration;

use tapline::s3_server::fault::RuleToBe;
use tapline::s3_server::{Fault, Faults, Op};

/// A rule about some requests, to be said to its end.
type Requests = for<'a> fn(&'a Faults) -> RuleToBe<'a>;

/// A request of a backup.
#[derive(Clone, Copy)]
pub struct Step {
    pub name: &'static str,
    pub what: &'static str,
    /// What else has to go wrong for it to be made.
    pub after: After,
    rule: Requests,
}

/// What goes wrong before the fault, so that its request is made at all.
#[derive(Clone, Copy, PartialEq)]
pub enum After {
    Nothing,
    /// The dump tool fails when all parts but the first are uploaded.
    DumpFailed,
    /// The archive is complete, and its manifest refused.
    ManifestDenied,
    /// Nothing goes wrong; the dump is small, and known to be.
    Small,
}

pub const STEPS: [Step; 13] = [
    Step {
        name: "lease",
        what: "telling other runs of this one, and looking for them",
        after: After::Nothing,
        rule: |faults| faults.on_any().key("~tapline/leases/"),
    },
    Step {
        name: "create",
        what: "beginning the upload",
        after: After::Nothing,
        rule: |faults| faults.on(Op::Create),
    },
    Step {
        name: "part n",
        what: "every part but the first",
        after: After::Nothing,
        rule: |faults| faults.on(Op::Part).parts_from(2),
    },
    Step {
        name: "part 1",
        what: "the first part, which is sent last",
        after: After::Nothing,
        rule: |faults| faults.on(Op::Part).part(1),
    },
    Step {
        name: "complete",
        what: "making the parts an object",
        after: After::Nothing,
        rule: |faults| faults.on(Op::Complete),
    },
    Step {
        name: "head",
        what: "looking whether an object is there",
        after: After::Nothing,
        rule: |faults| faults.on(Op::Head),
    },
    Step {
        name: "manifest",
        what: "putting the manifest",
        after: After::Nothing,
        rule: |faults| faults.on(Op::Put).key("manifest.json"),
    },
    Step {
        name: "small archive",
        what: "putting the archive of a small dump",
        after: After::Small,
        rule: |faults| faults.on(Op::Put).key(".tar."),
    },
    Step {
        name: "small manifest",
        what: "putting the manifest of a small dump",
        after: After::Small,
        rule: |faults| faults.on(Op::Put).key("manifest.json"),
    },
    Step {
        name: "list uploads",
        what: "looking for open uploads when the dump has failed",
        after: After::DumpFailed,
        rule: |faults| faults.on(Op::ListUploads),
    },
    Step {
        name: "abort",
        what: "ending the upload when the dump has failed",
        after: After::DumpFailed,
        rule: |faults| faults.on(Op::Abort),
    },
    Step {
        name: "list",
        what: "looking for objects when the manifest was refused",
        after: After::ManifestDenied,
        rule: |faults| faults.on(Op::List).key("backups/x/"),
    },
    Step {
        name: "delete",
        what: "deleting the archive when the manifest was refused",
        after: After::ManifestDenied,
        rule: |faults| faults.on(Op::Delete).key("backups/x/"),
    },
];

/// A fault, and what it is to whoever reads the table.
pub type Named = (&'static str, Fault, &'static str);

const SHORT: Duration = Duration::from_millis(300);

/// What a request of a backup can meet.
pub const FAULTS: [Named; 22] = [
    ("stalled", Fault::Stalled, "never answered, not done"),
    ("done, stalled", Fault::DoneStalled, "done, never answered"),
    ("denied", Fault::Denied, "403 AccessDenied"),
    ("slow down", Fault::SlowDown, "503 SlowDown"),
    ("error", Fault::InternalError, "500 InternalError, not done"),
    (
        "done, error",
        Fault::DoneInternalError,
        "500 InternalError, and done",
    ),
    (
        "reply lost",
        Fault::ReplyLost,
        "done, then the connection closes",
    ),
    (
        "cut before",
        Fault::CutBefore,
        "the connection closes before the body",
    ),
    (
        "cut in body",
        Fault::CutInBody,
        "the connection closes in the middle of the body",
    ),
    (
        "cut after body",
        Fault::CutAfterBody,
        "the connection closes after the body, not done",
    ),
    (
        "cut in reply",
        Fault::CutReply { after: 40 },
        "done, the connection closes in the reply",
    ),
    (
        "slow body",
        Fault::SlowBody {
            bytes_per_second: 10_000_000,
        },
        "the body is read slowly",
    ),
    (
        "slow reply",
        Fault::SlowReply { after: SHORT },
        "the reply comes late",
    ),
    (
        "trickled reply",
        Fault::TrickledReply {
            gap: Duration::from_millis(3),
        },
        "the reply comes in a hundred pieces",
    ),
    (
        "late",
        Fault::Late { by: SHORT },
        "done late, also when the client is gone",
    ),
    (
        "error in 200",
        Fault::ErrorIn200,
        "200 with an error in it, not done",
    ),
    (
        "done, error in 200",
        Fault::DoneErrorIn200,
        "200 with an error in it, and done",
    ),
    (
        "without effect",
        Fault::WithoutEffect,
        "answered as if it were done",
    ),
    (
        "empty",
        Fault::EmptyWithoutEffect,
        "200 and nothing else, not done",
    ),
    ("garbage", Fault::Garbage, "200 with a web page, not done"),
    (
        "done, garbage",
        Fault::DoneGarbage,
        "200 with a web page, and done",
    ),
    ("no ETag", Fault::NoEtag, "done, the reply lacks its ETag"),
];

/// A request of a restore.
pub const READS: [(&str, &str, Requests); 3] = [
    ("list", "looking for the newest backup", |faults| {
        faults.on(Op::List)
    }),
    ("manifest", "reading a manifest", |faults| {
        faults.on(Op::Get).key("manifest.json")
    }),
    ("archive", "reading the archive", |faults| {
        faults.on(Op::Get).key(".tar.")
    }),
];

/// What a request of a restore can meet.
pub const READ_FAULTS: [Named; 17] = [
    ("stalled", Fault::Stalled, "never answered"),
    ("denied", Fault::Denied, "403 AccessDenied"),
    ("slow down", Fault::SlowDown, "503 SlowDown"),
    ("error", Fault::InternalError, "500 InternalError"),
    (
        "reply lost",
        Fault::ReplyLost,
        "the connection closes before the reply",
    ),
    (
        "cut before",
        Fault::CutBefore,
        "the connection closes at once",
    ),
    (
        "cut in reply",
        Fault::CutReply { after: 100 },
        "the connection closes after 100 bytes",
    ),
    (
        "cut far in reply",
        Fault::CutReply { after: 1_000_000 },
        "the connection closes after a megabyte",
    ),
    (
        "slow reply",
        Fault::SlowReply { after: SHORT },
        "the reply comes late",
    ),
    (
        "trickled reply",
        Fault::TrickledReply {
            gap: Duration::from_millis(3),
        },
        "the reply comes in a hundred pieces",
    ),
    ("error in 200", Fault::ErrorIn200, "200 with an error in it"),
    ("empty", Fault::EmptyWithoutEffect, "200 and nothing else"),
    ("garbage", Fault::Garbage, "200 with a web page"),
    (
        "short",
        Fault::ShortReply,
        "half of the bytes, said to be all",
    ),
    ("wrong", Fault::WrongReply, "one bit is wrong"),
    ("no ETag", Fault::NoEtag, "the reply lacks its ETag"),
    (
        "range ignored",
        Fault::RangeIgnored,
        "the whole object, whatever range was asked for",
    ),
];

#[derive(Clone, Copy, PartialEq)]
pub enum Often {
    Once,
    ForEver,
}

pub const OFTEN: [Often; 2] = [Often::Once, Often::ForEver];

impl Often {
    pub fn name(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::ForEver => "for ever",
        }
    }

    pub fn of(self, rule: RuleToBe<'_>) -> RuleToBe<'_> {
        match self {
            Self::Once => rule.nth(1),
            Self::ForEver => rule,
        }
    }
}

/// Whether a request that meets it is never answered.
pub fn is_silent(fault: Fault) -> bool {
    matches!(fault, Fault::Stalled | Fault::DoneStalled)
}

#[derive(Clone, Copy)]
pub struct BackupCell {
    pub step: Step,
    pub fault: Named,
    pub often: Often,
}

impl BackupCell {
    /// All of them with their numbers; those that wait longest come first.
    pub fn all() -> Vec<(usize, Self)> {
        let mut cells = Vec::new();
        for (row, fault) in FAULTS.into_iter().enumerate() {
            for (turn, often) in [Often::ForEver, Often::Once].into_iter().enumerate() {
                for (column, step) in STEPS.into_iter().enumerate() {
                    cells.push((row + column + turn, Self { step, fault, often }));
                }
            }
        }
        cells
    }

    pub fn name(&self) -> String {
        format!(
            "{} / {} / {}",
            self.step.name,
            self.fault.0,
            self.often.name()
        )
    }

    /// Whether requests are never answered.
    pub fn is_silent(&self) -> bool {
        is_silent(self.fault.1)
    }

    pub fn script(&self, faults: &Faults) {
        self.often.of((self.step.rule)(faults)).meets(self.fault.1);
        if self.step.after == After::ManifestDenied {
            faults.on(Op::Put).key("manifest.json").meets(Fault::Denied);
        }
    }
}
