//! What is known of the stores, kept for a while: whoever looks at a page does not wait for
//! thousands of objects to be listed again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whoever asks waits so long for what is newer than what is known already.
const PATIENCE: Duration = Duration::from_millis(500);

/// One value, asked for by one at a time.
pub struct Cache<T> {
    known: Mutex<Option<(Instant, Arc<T>)>>,
    turn: tokio::sync::Mutex<()>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            known: Mutex::new(None),
            turn: tokio::sync::Mutex::default(),
        }
    }
}

impl<T: Send + Sync + 'static> Cache<T> {
    /// The value, younger than `fresh` where it could be had soon; else the last one, while it is
    /// asked for in the background. Only who is the first waits for as long as it takes.
    ///
    /// # Errors
    /// Why it could not be had.
    pub async fn get(
        self: &Arc<Self>,
        fresh: Duration,
        ask: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> Result<Arc<T>, String> {
        if let Some(value) = self.younger_than(fresh) {
            return Ok(value);
        }
        let known = self.younger_than(Duration::MAX);
        let cache = self.clone();
        let asking = tokio::spawn(async move {
            let _turn = cache.turn.lock().await;
            // Whoever was before has asked for all who wait.
            if let Some(value) = cache.younger_than(fresh) {
                return Ok(value);
            }
            let value = Arc::new(ask.await?);
            *cache.lock() = Some((Instant::now(), value.clone()));
            Ok(value)
        });
        let broken = |_| Err("it could not be asked for".to_owned());
        match known {
            None => asking.await.unwrap_or_else(broken),
            Some(known) => match tokio::time::timeout(PATIENCE, asking).await {
                Ok(asked) => asked.unwrap_or_else(broken),
                Err(_) => Ok(known),
            },
        }
    }

    /// What is known is not taken for fresh any more; it is still shown rather than nothing.
    pub fn age(&self) {
        if let Some((at, _)) = self.lock().as_mut() {
            *at = at.checked_sub(Duration::from_hours(1)).unwrap_or(*at);
        }
    }

    fn younger_than(&self, limit: Duration) -> Option<Arc<T>> {
        let known = self.lock();
        let (at, value) = known.as_ref()?;
        (at.elapsed() < limit).then(|| value.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Arc<T>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_first_waits_and_later_ones_have_the_last_value_while_a_new_one_is_slow() {
        let (cache, asked) = (Arc::<Cache<u32>>::default(), Arc::<AtomicU32>::default());
        let ask = |millis: u64| {
            let asked = asked.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Ok(asked.fetch_add(1, Ordering::SeqCst) + 1)
            }
        };
        let hour = Duration::from_hours(1);
        let both = tokio::join!(cache.get(hour, ask(700)), cache.get(hour, ask(700)));
        assert_eq!((*both.0.unwrap(), *both.1.unwrap()), (1, 1));
        assert_eq!(*cache.get(hour, ask(0)).await.unwrap(), 1);
        assert_eq!(*cache.get(Duration::ZERO, ask(0)).await.unwrap(), 2);
        assert_eq!(
            *cache.get(Duration::ZERO, ask(1500)).await.unwrap(),
            2,
            "the last one"
        );
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(
            *cache.get(hour, ask(0)).await.unwrap(),
            3,
            "asked for meanwhile"
        );
        let failed = cache
            .get(Duration::ZERO, async { Err("away".into()) })
            .await;
        assert_eq!(failed.unwrap_err(), "away");
    }
}
