//! What a bucket itself is asked.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule, ObjectLockEnabled};

use super::S3Store;

impl S3Store {
    /// How long what a backup stores is locked, in days, where it is.
    pub fn lock_days(&self) -> Option<u32> {
        self.settings.lock.as_ref().map(|lock| lock.days)
    }

    /// Whether objects can be locked in the bucket; `None` when it would not say.
    pub async fn locks_objects(&self) -> Option<bool> {
        let request = self
            .client
            .get_object_lock_configuration()
            .bucket(&self.settings.bucket);
        match request.send().await {
            Ok(found) => {
                let lock = found.object_lock_configuration()?;
                Some(lock.object_lock_enabled() == Some(&ObjectLockEnabled::Enabled))
            }
            Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => {
                Some(false)
            }
            Err(_) => None,
        }
    }

    /// Whether the bucket has a rule for all of this prefix that aborts incomplete uploads; `None` when it would not say.
    pub async fn aborts_incomplete_uploads(&self) -> Option<bool> {
        let request = self
            .client
            .get_bucket_lifecycle_configuration()
            .bucket(&self.settings.bucket);
        match request.send().await {
            Ok(found) => {
                let prefix = self.full("");
                let aborts = |rule| aborts_uploads_below(rule, &prefix);
                Some(found.rules().iter().any(aborts))
            }
            Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Some(false),
            Err(_) => None,
        }
    }
}

/// Whether a rule aborts every incomplete upload below `prefix`. One that asks for tags or sizes means
/// no upload: those have neither.
fn aborts_uploads_below(rule: &LifecycleRule, prefix: &str) -> bool {
    let filter = rule.filter();
    let several = filter.and_then(|filter| filter.and());
    let asks_for_more = filter.is_some_and(|filter| {
        filter.tag().is_some()
            || filter.object_size_greater_than().is_some()
            || filter.object_size_less_than().is_some()
    }) || several.is_some_and(|several| {
        !several.tags().is_empty()
            || several.object_size_greater_than().is_some()
            || several.object_size_less_than().is_some()
    });
    // Where a rule had its prefix before there were filters.
    #[expect(deprecated, reason = "older rules have it")]
    let of_old = rule.prefix();
    let given = filter
        .and_then(|filter| filter.prefix())
        .or_else(|| several?.prefix())
        .or(of_old)
        .unwrap_or_default();
    rule.status() == &ExpirationStatus::Enabled
        && rule.abort_incomplete_multipart_upload().is_some()
        && !asks_for_more
        && prefix.starts_with(given)
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{
        AbortIncompleteMultipartUpload, LifecycleRuleAndOperator, LifecycleRuleFilter, Tag,
    };

    use super::*;

    #[test]
    fn a_rule_for_another_prefix_aborts_no_upload_of_ours() {
        let tag = Tag::builder().key("a").value("b").build().unwrap();
        let below = |prefix: &str| LifecycleRuleFilter::builder().prefix(prefix);
        let tagged = LifecycleRuleAndOperator::builder()
            .prefix("backups/")
            .tags(tag.clone());
        let tagged = LifecycleRuleFilter::builder().and(tagged.build());
        for (filter, aborts) in [
            (LifecycleRuleFilter::builder(), true),
            (below(""), true),
            (below("back"), true),
            (below("backups/"), true),
            (below("logs/"), false),
            (below("backups/shop/"), false),
            (LifecycleRuleFilter::builder().tag(tag), false),
            (tagged, false),
        ] {
            let days = AbortIncompleteMultipartUpload::builder().days_after_initiation(7);
            let rule = |status| {
                LifecycleRule::builder()
                    .status(status)
                    .filter(filter.clone().build())
                    .abort_incomplete_multipart_upload(days.clone().build())
                    .build()
                    .unwrap()
            };
            let enabled = rule(ExpirationStatus::Enabled);
            assert_eq!(
                aborts_uploads_below(&enabled, "backups/"),
                aborts,
                "{filter:?}"
            );
            assert!(!aborts_uploads_below(
                &rule(ExpirationStatus::Disabled),
                "backups/"
            ));
        }
    }
}
