//! Which source an entry of the inventory means.

use sha2::{Digest, Sha256};

use crate::catalog::SourceIdentity;
use crate::config::Database;

/// A server's database. `server` is what the server calls itself.
pub(super) fn server_identity(
    entry: &Database,
    default_port: u16,
    database: Option<&str>,
    server: Option<&str>,
) -> SourceIdentity {
    let port = entry.port.unwrap_or(default_port);
    let is_remote = entry.host.as_deref().filter(|host| !is_local(host));
    let host = match (is_remote, &entry.socket) {
        (Some(host), _) => format!("{host}:{port}"),
        (None, Some(socket)) => format!("{}:{}", host_name(), socket.display()),
        (None, None) => format!("{}:{port}", host_name()),
    };
    SourceIdentity {
        engine: entry.engine.name().into(),
        host,
        database: database.map(str::to_owned),
        server: server
            .filter(|server| !server.is_empty())
            .map(str::to_owned),
    }
}

/// What is on this machine and has no server.
pub(super) fn local_identity(entry: &Database, what: &str) -> SourceIdentity {
    SourceIdentity {
        engine: entry.engine.name().into(),
        host: host_name(),
        database: Some(what.to_owned()),
        server: machine(),
    }
}

fn is_local(host: &str) -> bool {
    let is_loopback = |host: &str| {
        host.parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
    };
    host.eq_ignore_ascii_case("localhost") || host.starts_with('/') || is_loopback(host)
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// This machine's identity, hashed as machine-id(5) demands of what leaves the machine.
fn machine() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = Some(id.trim()).filter(|id| !id.is_empty() && *id != "uninitialized")?;
    let digest = Sha256::new()
        .chain_update("tapline source identity\n")
        .chain_update(id)
        .finalize();
    Some(crate::archive::hex(&digest[..16]))
}
