//! A synthetic dump: bytes that look like SQL text, as many as asked for and about as compressible,
//! the same every time. With it the path can be measured where there is no database, and without a
//! database being what is measured.
//!
//! A row is text that recurs, and a field of random letters. gzip makes `TEXT` of a byte of the one
//! and `RANDOM` of a byte of the other, so the share `s` of random bytes follows from the ratio:
//!
//! ```text
//! 1 / ratio = TEXT × (1 - s) + RANDOM × s
//! ```

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use bytesize::ByteSize;

/// The hidden subcommand that writes one.
pub const SUBCOMMAND: &str = "__synthetic";

/// The ratio of a realistic database's plain dump under `gzip -6`.
const USUAL_RATIO: f64 = 3.5;
/// What can be had of this text.
const RATIOS: std::ops::RangeInclusive<f64> = 1.35..=15.0;
/// What `gzip -6` makes of a byte of the text and of a random letter; measured.
const TEXT: f64 = 0.058;
const RANDOM: f64 = 0.757;

const BUFFER: usize = 1 << 20;
const SEED: u64 = 7;
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const INSERT: &[u8] =
    b"INSERT INTO public.orders (id, customer_id, status, created_at, note, payload) VALUES (";
const NOTES: [&[u8]; 8] = [
    b", 'paid', '2024-01-01 00:00:00', 'express shipping to the usual address', '",
    b", 'pending', '2024-02-29 12:30:00', 'payment reminder sent to the customer', '",
    b", 'shipped', '2024-03-31 23:59:59', 'left the warehouse in two parcels', '",
    b", 'done', '2024-05-01 08:15:00', 'signed for by a neighbour', '",
    b", 'cancelled', '2024-06-15 17:45:00', 'refund of the whole amount by invoice', '",
    b", 'returned', '2024-08-20 10:10:10', 'damaged on the way, replacement ordered', '",
    b", 'paid', '2024-10-10 20:20:20', 'gift wrapped, with a card', '",
    b", 'pending', '2024-12-24 06:00:00', 'out of stock, supplier was asked', '",
];
const END: &[u8] = b"');\n";

/// Size and compressibility of a synthetic dump; written `4GiB:3`, or `4GiB` for the usual ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synthetic {
    size: u64,
    ratio: f64,
}

impl Synthetic {
    /// Size of the dump, in bytes.
    pub fn size(self) -> u64 {
        self.size
    }

    /// Writes the dump.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(self, out: &mut impl Write) -> io::Result<()> {
        let share = (1.0 / self.ratio - TEXT) / (RANDOM - TEXT);
        let random_per_text = share / (1.0 - share);
        let mut rng = fastrand::Rng::with_seed(SEED);
        let mut buffer = Vec::with_capacity(2 * BUFFER);
        let (mut left, mut owed) = (self.size, 0.0);
        for id in 1_u64.. {
            let begin = buffer.len();
            buffer.extend_from_slice(INSERT);
            write!(buffer, "{id}, {}", id % 500)?;
            buffer.extend_from_slice(NOTES[rng.usize(..NOTES.len())]);
            let text = buffer.len() - begin + END.len();
            #[expect(clippy::cast_precision_loss, reason = "a row is short")]
            let random = owed + text as f64 * random_per_text;
            owed = random.fract();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole letters"
            )]
            letters(&mut rng, random as usize, &mut buffer);
            buffer.extend_from_slice(END);
            if buffer.len() >= BUFFER || buffer.len() as u64 >= left {
                let length = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                out.write_all(&buffer[..length])?;
                buffer.clear();
                left -= length as u64;
                if left == 0 {
                    break;
                }
            }
        }
        out.flush()
    }
}

/// Appends `count` random letters.
fn letters(rng: &mut fastrand::Rng, count: usize, buffer: &mut Vec<u8>) {
    let end = buffer.len() + count;
    while buffer.len() < end {
        let bits = rng.u64(..);
        let ten: [u8; 10] = std::array::from_fn(|at| {
            LETTERS[usize::from((bits >> (6 * at)).to_le_bytes()[0] & 63)]
        });
        buffer.extend_from_slice(&ten);
    }
    buffer.truncate(end);
}

impl FromStr for Synthetic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (size, ratio) = text
            .split_once(':')
            .map_or((text, None), |(size, ratio)| (size, Some(ratio)));
        let size: ByteSize = size
            .parse()
            .map_err(|_| "write a size such as 4GiB, or size and ratio such as 4GiB:3")?;
        let ratio = ratio
            .map_or(Ok(USUAL_RATIO), str::parse)
            .ok()
            .filter(|ratio| RATIOS.contains(ratio));
        let (least, most) = (RATIOS.start(), RATIOS.end());
        let ratio =
            ratio.ok_or_else(|| format!("the ratio must be a number from {least} to {most}"))?;
        Ok(Self {
            size: size.as_u64(),
            ratio,
        })
    }
}

impl fmt::Display for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B:{}", self.size, self.ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(text: &str) -> Vec<u8> {
        let mut dump = Vec::new();
        text.parse::<Synthetic>().unwrap().write(&mut dump).unwrap();
        dump
    }

    #[test]
    fn it_compresses_as_asked_under_gzip() {
        for ratio in [1.5, 2.0, 3.0, 3.5, 6.0, 10.0, 15.0] {
            let dump = dump(&format!("4MiB:{ratio}"));
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            gzip.write_all(&dump).unwrap();
            let compressed = gzip.finish().unwrap().len();
            #[expect(clippy::cast_precision_loss)]
            let measured = dump.len() as f64 / compressed as f64;
            println!("asked for {ratio}, got {measured:.2}");
            assert!(
                (measured / ratio - 1.0).abs() < 0.15,
                "asked for {ratio}, got {measured}"
            );
        }
    }

    #[test]
    fn it_has_the_size_asked_for_and_is_the_same_every_time() {
        for size in [0, 1, 1000, (1 << 20) + 1] {
            assert_eq!(dump(&format!("{size}")).len(), size);
        }
        assert_eq!(dump("3MB:3"), dump("3MB:3"));
        assert!(dump("100KB:3").is_ascii());
    }

    #[test]
    fn a_size_and_ratio_read_back() {
        let both: Synthetic = "4GiB:3".parse().unwrap();
        assert_eq!(both.size(), 4 << 30);
        assert_eq!(both.to_string().parse(), Ok(both));
        assert_eq!(
            "1MB".parse(),
            Ok(Synthetic {
                size: 1_000_000,
                ratio: USUAL_RATIO
            })
        );
        for wrong in ["", "x", "1MB:", "1MB:x", "1MB:1", "1MB:NaN", "1MB:100"] {
            assert!(wrong.parse::<Synthetic>().is_err(), "{wrong}");
        }
    }
}
