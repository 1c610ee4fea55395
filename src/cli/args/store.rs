//! Options of what reads and writes stores alone: `list`, `show` and `copy`; and where a store is
//! when there is no inventory.

use clap::Args as ClapArgs;

use crate::catalog::BackupName;
use crate::signature::SignerName;

#[derive(Debug, Default, Clone, ClapArgs)]
pub struct ListOptions {
    /// Only this database, or those that a `database = "*"` of this name stands for; an
    /// s3://BUCKET/PREFIX or file:///FOLDER is looked into without an inventory
    pub name: Option<String>,
    #[command(flatten)]
    pub from: FromOptions,
    /// Look in this store of the inventory only
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct ShowOptions {
    /// Which backup: NAME or NAME@LATEST is the latest of that database, NAME@ID any
    #[arg(value_name = "NAME[@ID]")]
    pub name: BackupName,
    #[command(flatten)]
    pub from: FromOptions,
    /// Look in this store of the inventory only
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// The stored manifest as it is
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct CopyOptions {
    /// Which backup: NAME or NAME@LATEST is the latest of that database, NAME@ID any
    #[arg(value_name = "NAME[@ID]", required_unless_present = "all")]
    pub name: Option<BackupName>,
    /// All that the store lacks and its rules keep: of the databases whose backups go there, or of NAME
    #[arg(long)]
    pub all: bool,
    /// Into this store of the inventory
    #[arg(long, value_name = "NAME")]
    pub to: String,
    /// From this store of the inventory [default: whichever other has it]
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Log lines instead of a progress bar
    #[arg(long)]
    pub no_progress: bool,
}

/// A store that is read without an inventory: after a disaster there is a bucket, and nothing else.
#[derive(Debug, Default, Clone, ClapArgs)]
#[command(next_help_heading = "Without an inventory")]
pub struct FromOptions {
    /// Look here instead of in the inventory's stores: s3://BUCKET/PREFIX, with the AWS chain's
    /// credentials (AWS_ACCESS_KEY_ID, ~/.aws, …), or file:///FOLDER
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// Where the bucket is, for servers other than AWS
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_S3")]
    pub endpoint: Option<String>,
    /// Its region [default: by the AWS chain]
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Take only backups that the owner of this minisign key has signed; several times for several
    /// [default: trusted_signers of the inventory]
    #[arg(long, value_name = "RW…")]
    pub trusted_signer: Vec<SignerName>,
}
