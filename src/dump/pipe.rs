//! A child's stdout, read in large pieces.
//!
//! Dump tools write 4 KiB at a time: a C library's buffer for a pipe. A reader that is woken for
//! each of them costs more than all else that reading does, and half of that the tool pays, whose
//! write it is that wakes. So whoever reads a stream that flows takes a **nap** and lets the pipe
//! fill, and is not registered with the system's poll meanwhile, so that a write wakes nobody.
//!
//! A nap must not hold up a tool that is fast: where the pipe was nearly full after one, there is
//! none for a while. A few reads come before the first, so that what is small takes no longer.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::process::ChildStdout;
use tokio::time::sleep;

/// As short as the runtime's clock has it. At 200 MB/s, what `pg_dump` gives, some 400 KiB come in
/// one.
const NAP: Duration = Duration::from_millis(1);
/// Reads without a nap at the beginning, and after a nap in which nothing came.
const BEFORE_NAPS: u32 = 16;
/// Reads without a nap after one that the pipe was too small for.
const WITHOUT_NAPS: u32 = 1024;

/// The reading end of a child's stdout.
pub(super) struct Pipe {
    file: File,
    /// When a nap brings so many bytes, the tool may have had to wait.
    nearly_full: usize,
    /// Reads until the next nap.
    until_nap: u32,
}

impl Pipe {
    /// Takes it over.
    ///
    /// # Errors
    /// When the system does not let it go.
    pub fn new(stdout: ChildStdout) -> io::Result<Self> {
        let fd = stdout.into_owned_fd()?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        let capacity = rustix::pipe::fcntl_getpipe_size(&fd)?;
        Ok(Self {
            file: fd.into(),
            nearly_full: capacity / 4 * 3,
            until_nap: BEFORE_NAPS,
        })
    }

    /// Waits for bytes and takes what is there, up to `room` of them, behind what `into` holds: how
    /// many, 0 at the end. When it is given up nothing is lost.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read(&mut self, into: &mut Vec<u8>, room: usize) -> io::Result<usize> {
        let naps = self.until_nap == 0;
        if naps {
            sleep(NAP).await;
        }
        into.reserve(room);
        loop {
            if let Some(read) = self.take(into, room)? {
                self.until_nap = match self.until_nap {
                    0 if read >= self.nearly_full => WITHOUT_NAPS,
                    reads => reads.saturating_sub(1),
                };
                return Ok(read);
            }
            if naps {
                self.until_nap = BEFORE_NAPS;
            }
            // Registered for as long as it is waited for.
            let receiver = Receiver::from_file_unchecked(self.file.try_clone()?)?;
            receiver.readable().await?;
        }
    }

    /// What is there, or nothing where the tool has not come to its end.
    fn take(&self, into: &mut Vec<u8>, room: usize) -> io::Result<Option<usize>> {
        let before = into.len();
        // What was read before an error is kept.
        let result = (&self.file).take(room as u64).read_to_end(into);
        match (result, into.len() - before) {
            (Err(error), 0) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            (Err(error), _) if error.kind() != ErrorKind::WouldBlock => Err(error),
            (_, read) => Ok(Some(read)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::{Child, ToolCommand};

    fn pipe(script: &str) -> (Child, Pipe) {
        let (child, stdout) = Child::reading(&ToolCommand::new("sh").args(["-c", script])).unwrap();
        (child, Pipe::new(stdout).unwrap())
    }

    /// All that comes, and how many reads it took.
    async fn all(script: &str, room: usize) -> (Vec<u8>, usize) {
        let (_child, mut pipe) = pipe(script);
        let (mut all, mut reads) = (Vec::new(), 0);
        while pipe.read(&mut all, room).await.unwrap() > 0 {
            reads += 1;
        }
        (all, reads)
    }

    #[tokio::test]
    async fn what_flows_in_small_writes_is_read_in_large_pieces() {
        let (writes, size) = (20_000, 4096);
        let script = format!("dd if=/dev/zero bs={size} count={writes} status=none");
        let (all, reads) = all(&script, 4 << 20).await;
        assert_eq!(all.len(), writes * size);
        assert!(reads < writes / 4, "{reads} reads");
    }

    #[tokio::test]
    async fn each_byte_comes_once_and_in_order_however_it_is_cut() {
        // Small and large writes, with pauses in which nothing comes.
        let script = "for i in 1 2 3 4 5; do seq 1 $((i * i * 2000)); sleep 0.01; echo $i; done";
        let expected = std::process::Command::new("sh")
            .args(["-c", script])
            .output()
            .unwrap();
        for room in [1 << 10, 5000, 1 << 20] {
            assert_eq!(all(script, room).await.0, expected.stdout, "{room}");
        }
    }

    #[tokio::test]
    async fn no_more_is_taken_than_there_is_room_for_and_giving_up_loses_nothing() {
        let (_child, mut pipe) = pipe("printf 0123456789; read wait");
        let mut some = Vec::with_capacity(100);
        assert_eq!(pipe.read(&mut some, 3).await.unwrap(), 3);
        assert_eq!(pipe.read(&mut some, 100).await.unwrap(), 7);
        assert_eq!(some, b"0123456789");
        let (_child, mut pipe) = super::tests::pipe("sleep 0.05; printf late");
        let given_up = tokio::time::timeout(NAP, pipe.read(&mut some, 100)).await;
        assert!(given_up.is_err());
        some.clear();
        while pipe.read(&mut some, 100).await.unwrap() > 0 {}
        assert_eq!(some, b"late");
    }
}
