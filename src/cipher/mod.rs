//! An archive that only the owner of a key can read: the age format, <https://age-encryption.org/v1>.
//!
//! ```text
//!  header: the file key, wrapped to each recipient; its MAC      by the age crate
//!  nonce                                                         16 bytes
//!  piece 0, 1, 2, …: 64 KiB, sealed with the number as nonce     by ring, on all cores, 0 last
//! ```
//!
//! Whoever backs up needs public keys alone, so the host of the backups holds nothing that opens
//! them. What a plaintext must prove, its size and SHA-256, is inside.
//!
//! | file | what is in it |
//! |---|---|
//! | [`recipient`] | who can read: public keys, or a passphrase |
//! | [`seal`] | one archive's header and key |
//! | [`envelope`] | the layer between encode and part: pieces sealed on all cores |
//! | [`identity`] | who reads: private keys, from files |
//! | [`open`] | the way back: an archive decrypted, or looked at without a key |

mod envelope;
mod identity;
mod open;
mod recipient;
mod seal;
#[cfg(test)]
mod tests;

pub use envelope::Envelope;
pub use identity::{Ask, Identities, NewIdentity};
pub use open::{Locked, Shape, opened, opened_text, shape};
pub use recipient::{Lock, Recipient};
pub use seal::{CHUNK, Seal, TAG};
