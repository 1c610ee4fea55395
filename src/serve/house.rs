//! The inventory with its stores open: exchanged as a whole when it is read again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::agenda::Agenda;
use crate::access::open_stores;
use crate::config::{ConfigError, Inventory};
use crate::run::{Plan, Workshop};
use crate::store::SharedStore;
use crate::store::retry::{PatientStore, RetryPolicy};

/// An inventory at work.
pub(super) struct House {
    pub inventory: Inventory,
    /// Its stores, as they are.
    pub stores: BTreeMap<String, SharedStore>,
    /// The same, which try again what may pass.
    pub patient: BTreeMap<String, SharedStore>,
    /// The same, for what is asked again in a minute anyway and must not wait for one that is away.
    pub asked: BTreeMap<String, SharedStore>,
    /// Places and cores, shared by all runs of it.
    pub workshop: Workshop,
}

/// How long a request of those is tried again.
const ASKED_FOR: Duration = Duration::from_secs(10);

/// The stores, which try again for so long what may pass.
fn patient(
    stores: &BTreeMap<String, SharedStore>,
    patience: Duration,
) -> BTreeMap<String, SharedStore> {
    let policy = RetryPolicy::lasting(patience);
    let patient = |store: &SharedStore| {
        let patient = PatientStore::new(store.clone(), policy, Arc::new(|| ()));
        Arc::new(patient) as SharedStore
    };
    let stores = stores.iter();
    stores
        .map(|(name, store)| (name.clone(), patient(store)))
        .collect()
}

impl House {
    /// Reads the inventory and opens its stores.
    pub async fn open(config: &Path) -> Result<Self, ConfigError> {
        let inventory = Inventory::load(config)?;
        for warning in &inventory.warnings {
            tracing::warn!("{warning}");
        }
        let opened = open_stores(&inventory).await?;
        let stores: BTreeMap<String, SharedStore> = opened
            .into_iter()
            .map(|(name, store)| (name, store.shared()))
            .collect();
        let retry_for = inventory.run.retry_for;
        let house = Self {
            workshop: Workshop::new(&inventory.run, 1),
            inventory,
            patient: patient(&stores, retry_for),
            asked: patient(&stores, retry_for.min(ASKED_FOR)),
            stores,
        };
        let at_once = house.plan()?.at_once;
        let workshop = Workshop::new(&house.inventory.run, at_once);
        Ok(Self { workshop, ..house })
    }

    /// A run of all databases.
    pub fn plan(&self) -> Result<Plan, ConfigError> {
        let own = std::env::current_exe();
        let own =
            own.map_err(|error| ConfigError(format!("this program's own binary: {error}")))?;
        Plan::new(&self.inventory, self.stores.clone(), &[], own)
    }

    /// What there is to do.
    pub fn agenda(&self) -> Result<Agenda, ConfigError> {
        let agenda = Agenda::new(&self.inventory);
        if agenda.is_empty() {
            let path = self.inventory.path.display();
            return Err(ConfigError(format!(
                "{path}: nothing is ever due; add schedule = \"0 2 * * *\" under [defaults] or a \
                 database"
            )));
        }
        Ok(agenda)
    }
}
