//! What holds a private key or a passphrase leaves no core dump: the kernel would write all of its
//! memory to a file, or give it to a program that does.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// From now on this process leaves none, nor do the children that it starts leave a file. What the
/// kernel refuses is said; it fails nothing.
pub fn forbid() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited = setrlimit(Resource::Core, none);
    // A program that takes them is not kept by the limit.
    let undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = limited.and(undumpable) {
        tracing::warn!("a crash might leave keys in a core dump: {error}");
    }
}
