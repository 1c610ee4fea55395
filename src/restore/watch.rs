//! What keeps a restore from waiting for ever without a word: who holds a lock is named, and there is
//! an end to patience.

use std::time::Duration;

use super::{Progress, RestoreError, Waiting};
use crate::engine::{Activity, Engine};
use crate::units;

/// How long nothing moves before the server is asked what it is doing; and how often then.
const LOOK: Duration = Duration::from_secs(5);

/// How long a restore waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a lock that another session holds.
    pub lock: Duration,
    /// While nothing moves and the server does nothing; for ever without it.
    pub stall: Option<Duration>,
}

/// Ends when patience does, and says what was waited for. Its time is counted in looks: while the
/// machine, or the process, is stopped nothing can move, and a look that came late counts as one.
pub(super) async fn watch(
    engine: &dyn Engine,
    progress: &Progress,
    patience: Patience,
) -> RestoreError {
    let state = || (progress.fetched(), progress.written());
    let (mut last, mut still, mut locked) = (state(), Duration::ZERO, None::<String>);
    loop {
        let look = patience
            .stall
            .map_or(LOOK, |stall| stall.min(LOOK))
            .min(patience.lock);
        tokio::time::sleep(look).await;
        let now = state();
        if now != last {
            (last, still, locked) = (now, Duration::ZERO, None);
            continue;
        }
        still += look;
        let words = |duration: Duration| units::time(duration.as_secs_f64());
        match engine.activity().await {
            Activity::Working => {
                (still, locked) = (Duration::ZERO, None);
                continue;
            }
            Activity::Locked(holder) => {
                if locked.as_ref() != Some(&holder) {
                    tracing::warn!("the restore waits for a lock that is held by {holder}");
                }
                if still >= patience.lock {
                    return RestoreError::Target(format!(
                        "it waited {} for a lock (--lock-timeout) that is held by {holder}",
                        words(still)
                    ));
                }
                locked = Some(holder);
            }
            Activity::Unknown => locked = None,
        }
        if let Some(stall) = patience.stall
            && still >= stall
        {
            let what = match progress.waits_for() {
                Waiting::Store => "the store to send more of the backup",
                Waiting::Target => "the target to take what it was given",
            };
            return RestoreError::Target(format!(
                "nothing moved for {} (stall_timeout): it waited for {what}",
                words(still)
            ));
        }
    }
}
