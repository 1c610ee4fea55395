//! Listings as streams: a bucket may hold more than memory, and a page is all that is kept of it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};

use super::{ErrorKind, ObjectInfo, OpenUpload, Page, Result, Store, StoreError, Version};

/// All objects whose keys begin with `prefix`, page after page.
pub fn objects<'a>(
    store: &'a dyn Store,
    prefix: &'a str,
) -> impl Stream<Item = Result<ObjectInfo>> + Send + Unpin + 'a {
    pages(move |token| store.list(prefix, token))
}

/// All open uploads whose keys begin with `prefix`, page after page.
pub fn uploads<'a>(
    store: &'a dyn Store,
    prefix: &'a str,
) -> impl Stream<Item = Result<OpenUpload>> + Send + Unpin + 'a {
    pages(move |token| store.list_uploads(prefix, token))
}

/// All versions of objects whose keys begin with `prefix`, page after page.
pub fn versions<'a>(
    store: &'a dyn Store,
    prefix: &'a str,
) -> impl Stream<Item = Result<Version>> + Send + Unpin + 'a {
    pages(move |token| store.list_versions(prefix, token))
}

/// All objects whose keys begin with `prefix`, where they are known to be few.
pub async fn list_all(store: &dyn Store, prefix: &str) -> Result<Vec<ObjectInfo>> {
    objects(store, prefix).try_collect().await
}

/// All open uploads whose keys begin with `prefix`, where they are known to be few.
pub async fn list_all_uploads(store: &dyn Store, prefix: &str) -> Result<Vec<OpenUpload>> {
    uploads(store, prefix).try_collect().await
}

enum Next {
    Page(Option<String>),
    End,
}

/// A listing that comes back to a page that it has named before would never end. Of each page's
/// name a hash is kept: 8 bytes for a thousand entries.
fn pages<'a, T: Send + 'a>(
    list: impl Fn(Option<String>) -> BoxFuture<'a, Result<Page<T>>> + Send + 'a,
) -> impl Stream<Item = Result<T>> + Send + Unpin + 'a {
    let state = (Next::Page(None), list, HashSet::new(), RandomState::new());
    stream::try_unfold(state, async |(next, list, mut named, hasher)| {
        let Next::Page(token) = next else {
            return Ok(None);
        };
        let Page { items, next } = list(token).await?;
        let next = match next {
            None => Next::End,
            Some(token) if named.insert(hasher.hash_one(&token)) => Next::Page(Some(token)),
            Some(_) => {
                return Err(StoreError::new(
                    ErrorKind::Invalid,
                    "the store's listing does not end: it comes back to a page that it had before",
                ));
            }
        };
        let items = stream::iter(items.into_iter().map(Ok));
        Ok(Some((items, (next, list, named, hasher))))
    })
    .try_flatten()
    .boxed()
}
