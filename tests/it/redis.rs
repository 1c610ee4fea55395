//! A real Redis, as the command that the README has for one.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::world::{World, tool, wait_until};

/// A server with a socket in a folder, ended when dropped.
struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cli(folder: &Path, args: &[&str]) -> String {
    let mut cli = Command::new("redis-cli");
    String::from_utf8(tool(cli.arg("-s").arg(folder.join("socket")).args(args))).unwrap()
}

impl Redis {
    fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let mut server = Command::new("setpriv");
        server
            .args([
                "--pdeathsig",
                "KILL",
                "redis-server",
                "--port",
                "0",
                "--save",
                "",
            ])
            .args(["--rdbcompression", "no", "--repl-diskless-sync-delay", "0"])
            .args(["--unixsocket", "socket"])
            .current_dir(folder)
            .stdout(Stdio::null());
        let server = Self(server.spawn().unwrap());
        let mut ping = Command::new("redis-cli");
        ping.arg("-s").arg(folder.join("socket")).arg("ping");
        wait_until(|| {
            let answer = ping.stdin(Stdio::null()).output().unwrap();
            answer.stdout.starts_with(b"PONG")
        });
        server
    }
}

/// All of it in words.
const LOOK: &str = "local all = redis.call('keys', '*') table.sort(all)
    for at, key in ipairs(all) do all[at] = redis.sha1hex(redis.call('dump', key)) end
    return redis.sha1hex(table.concat(all))";

#[test]
fn redis_comes_back_equal_and_a_dump_that_it_does_not_wait_for_is_told_with_its_setting() {
    let world = World::new(
        "[run]\nmemory = \"32MiB\"\n[databases.cache]\nengine = \"command\"\n\
         compression = \"none\"\ncommand = [\"redis-cli\", \"-s\", \"one/socket\", \"--rdb\", \"-\"]\n",
    );
    let (one, two) = (world.path("one"), world.path("two"));
    let server = Redis::start(&one);
    cli(&one, &["hset", "größe", "a", "1", "b", "\x01 it's"]);
    cli(&one, &["rpush", "list", "x", "", "y"]);
    let before = cli(&one, &["eval", LOOK, "0"]);
    assert_eq!(world.run(&["backup"]).code, Some(0));
    std::fs::create_dir(&two).unwrap();
    let output = ["restore", "cache", "--output", "two/dump.rdb"];
    assert_eq!(world.run(&output).code, Some(0));
    let restored = Redis::start(&two);
    assert_eq!(cli(&two, &["eval", LOOK, "0"]), before);
    drop(restored);

    // More than there is memory for on the way, a slow store, and a server that
    // has other patience.
    let fill = "for at = 1, 200 do redis.call('set', at, string.rep(tostring(at), 300000)) end";
    cli(&one, &["eval", fill, "0"]);
    cli(&one, &["config", "set", "repl-timeout", "3"]);
    world.server.link().slow(500 << 10);
    let keys = world.keys("cache");
    let run = world.run(&["backup"]);
    assert!(run.code == Some(1) && run.stdout.contains("raise its repl-timeout"));
    assert_eq!(world.keys("cache"), keys, "nothing is stored");
    drop(server);
}
