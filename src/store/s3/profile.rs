//! What is known of a provider before it is asked: a table of facts, each with its source.
//!
//! A profile is named by `provider`, or found by the endpoint's host name. It only ever makes tapline
//! ask for less: fewer parts in a volume, no condition, `Content-MD5` in place of a newer checksum. So
//! a profile that is wrong costs a little and breaks no promise; what is in no profile is learned from
//! what the server answers (`quirks`).
//!
//! That R2 takes parts of one size alone needs no fact here: the parts of a volume have one size but
//! for the last, with every provider
//! (<https://developers.cloudflare.com/r2/objects/multipart-objects/#limitations>).

use crate::store::Limits;

/// What a provider is known to do otherwise than AWS.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// As `provider` names it.
    pub name: &'static str,
    /// Its endpoints end in one of these.
    hosts: &'static [&'static str],
    /// The `Server` of its replies begins so.
    server: Option<&'static str>,
    /// Whether it takes the checksums that AWS added in 2022, CRC-64/NVME among them.
    pub checksums: bool,
    /// Whether it writes on the condition that no object has the key.
    pub conditions: bool,
    /// Most parts in an upload.
    pub max_parts: u32,
    /// Whether parts are taken in their order, and few before their turn.
    pub in_order: bool,
}

/// All of it as with AWS.
const PLAIN: Profile = Profile {
    name: "",
    hosts: &[],
    server: None,
    checksums: true,
    conditions: true,
    max_parts: Limits::S3.max_parts,
    in_order: false,
};

static PROFILES: [Profile; 13] = [
    Profile {
        name: "aws",
        hosts: &[".amazonaws.com", ".amazonaws.com.cn"],
        ..PLAIN
    },
    // "Unsupported header 'x-amz-checksum-crc32'", 400, also for `x-amz-sdk-checksum-algorithm` and
    // `x-amz-checksum-mode`: <https://www.backblaze.com/docs/cloud-storage-s3-compatible-api>,
    // <https://github.com/home-assistant/core/issues/143995>. No conditions on writes, 501:
    // <https://www.backblaze.com/apidocs/introduction-to-the-s3-compatible-api>.
    Profile {
        name: "b2",
        hosts: &[".backblazeb2.com"],
        checksums: false,
        conditions: false,
        ..PLAIN
    },
    Profile {
        name: "ceph",
        ..PLAIN
    },
    Profile {
        name: "garage",
        ..PLAIN
    },
    // A checksum header is "ExcessHeaderValues", or 412 on completion:
    // <https://github.com/milvus-io/milvus-storage/pull/480>,
    // <https://github.com/langfuse/langfuse/pull/13280>. Conditions on writes are ignored:
    // <https://github.com/aws/aws-sdk-java-v2/pull/6055>; Google's own are by generation:
    // <https://docs.cloud.google.com/storage/docs/request-preconditions>.
    Profile {
        name: "gcs",
        hosts: &["storage.googleapis.com"],
        server: Some("UploadServer"),
        checksums: false,
        conditions: false,
        ..PLAIN
    },
    Profile {
        name: "hetzner",
        hosts: &[".your-objectstorage.com"],
        ..PLAIN
    },
    Profile {
        name: "minio",
        server: Some("MinIO"),
        ..PLAIN
    },
    Profile {
        name: "moto",
        ..PLAIN
    },
    // Conditions: <https://developers.cloudflare.com/r2/api/s3/conditional-operations/>.
    Profile {
        name: "r2",
        hosts: &[".r2.cloudflarestorage.com"],
        ..PLAIN
    },
    // Parts are written on in order, as they come; of those before their turn some 256 MiB are
    // held: <https://rclone.org/commands/rclone_serve_s3/#multipart-uploads>.
    Profile {
        name: "rclone",
        in_order: true,
        ..PLAIN
    },
    // <https://www.scaleway.com/en/docs/object-storage/api-cli/multipart-uploads/>: "1 to 1000 parts
    // per object". Conditions: …/api-cli/using-conditional-writes/ there.
    Profile {
        name: "scaleway",
        hosts: &[".scw.cloud"],
        max_parts: 1_000,
        ..PLAIN
    },
    Profile {
        name: "wasabi",
        hosts: &[".wasabisys.com"],
        server: Some("WasabiS3"),
        ..PLAIN
    },
    Profile {
        name: "other",
        ..PLAIN
    },
];

impl Profile {
    /// The profile called `name`.
    pub fn called(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// The names of all profiles.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PROFILES.iter().map(|profile| profile.name)
    }

    /// The profile of whoever has this endpoint; AWS's without one.
    pub fn of_endpoint(endpoint: Option<&str>) -> &'static Self {
        let host = match endpoint.map(url::Url::parse) {
            None => return &PROFILES[0],
            Some(url) => url
                .ok()
                .and_then(|url| Some(url.host_str()?.to_ascii_lowercase()))
                .unwrap_or_default(),
        };
        // A host may be the name itself, and must not merely end in the same letters.
        let is_of = |end: &str| host == end.trim_start_matches('.') || host.ends_with(&dotted(end));
        let of = |profile: &&Self| profile.hosts.iter().any(|end| is_of(end));
        PROFILES.iter().find(of).unwrap_or_else(Self::other)
    }

    /// The profile of whoever calls itself so in its replies.
    pub fn of_server(server: &str) -> Option<&'static Self> {
        let of = |profile: &&Self| profile.server.is_some_and(|name| server.starts_with(name));
        PROFILES.iter().find(of)
    }

    /// Nothing is known.
    pub fn other() -> &'static Self {
        &PROFILES[PROFILES.len() - 1]
    }

    /// What follows from it, in words; nothing where it is all as with AWS.
    pub fn consequences(&self) -> Vec<String> {
        let mut all = Vec::new();
        if !self.checksums {
            all.push("parts and objects go with Content-MD5 in place of a checksum".to_owned());
        }
        if !self.conditions {
            all.push("no condition on writes: whose an object is, its metadata say".to_owned());
        }
        if self.max_parts < Limits::S3.max_parts {
            all.push(format!("a volume has at most {} parts", self.max_parts));
        }
        if self.in_order {
            all.push("an archive of more than one part has two volumes".to_owned());
        }
        all
    }
}

fn dotted(end: &str) -> String {
    format!(".{}", end.trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_taken_for_a_provider_only_when_it_is_of_it() {
        for (endpoint, name) in [
            ("https://s3.eu-central-1.amazonaws.com", "aws"),
            ("https://s3.eu-central-003.BACKBLAZEB2.com/", "b2"),
            ("https://s3.fr-par.scw.cloud:443", "scaleway"),
            ("https://0123.r2.cloudflarestorage.com/bucket", "r2"),
            ("https://storage.googleapis.com", "gcs"),
            ("https://bucket.storage.googleapis.com", "gcs"),
            ("https://notscw.cloud", "other"),
            ("https://scw.cloud.example.com", "other"),
            ("https://example.com/.scw.cloud", "other"),
            ("https://mystorage.googleapis.com", "other"),
            ("http://127.0.0.1:9000", "other"),
            ("http://[::1]:9000", "other"),
            ("nonsense", "other"),
        ] {
            assert_eq!(
                Profile::of_endpoint(Some(endpoint)).name,
                name,
                "{endpoint}"
            );
        }
        assert_eq!(Profile::of_endpoint(None).name, "aws");
        let of = |server| Profile::of_server(server).map(|profile| profile.name);
        assert_eq!(of("MinIO"), Some("minio"));
        // As rclone calls itself, too.
        assert_eq!(of("AmazonS3"), None);
        assert_eq!(of("nginx"), None);
    }

    #[test]
    fn every_profile_has_a_name_of_its_own_and_never_asks_for_more() {
        let mut names: Vec<_> = Profile::names().collect();
        for profile in &PROFILES {
            assert_eq!(Profile::called(profile.name), Some(profile));
            assert!((2..=Limits::S3.max_parts).contains(&profile.max_parts));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PROFILES.len());
        assert!(Profile::other().consequences().is_empty());
        assert_eq!(Profile::called("b2").unwrap().consequences().len(), 2);
    }
}
