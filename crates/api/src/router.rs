//! The management router, and how listings are cut into pages.

use axum::Router;
use axum::extract::DefaultBodyLimit;

use crate::control::Control;
use crate::problem::{Kind, Problem};
use crate::types::{Page, Paging};
use crate::{accounts, cluster, operate, queue, routing, rules, stops};

/// Largest JSON body.
const BODY_MAX: usize = 1 << 20;

/// The management API. Whoever serves it puts an [`crate::Actor`] into each request.
pub fn router<C: Control>(control: C) -> Router {
    Router::new()
        .merge(accounts::routes())
        .merge(routing::routes())
        .merge(rules::routes())
        .merge(stops::routes())
        .merge(queue::routes())
        .merge(operate::routes())
        .merge(cluster::routes())
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(Kind::MethodNotAllowed, "this method does not exist at this path")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(axum::middleware::from_fn_with_state(control.clone(), cluster::name_node::<C>))
        .with_state(control)
}

/// Cuts the part of a sorted listing out that `paging` asks for.
pub(crate) fn page<T, V>(
    paging: &Paging,
    sorted: impl Iterator<Item = T>,
    key: impl Fn(&T) -> String,
    view: impl Fn(T) -> V,
) -> axum::Json<Page<V>> {
    let limit = paging.limit();
    let mut rest = sorted.filter(|it| paging.after.as_ref().is_none_or(|after| key(it) > *after));
    let (mut items, mut last) = (Vec::new(), None);
    for it in rest.by_ref().take(limit) {
        last = Some(key(&it));
        items.push(view(it));
    }
    let next = rest.next().and(last);
    axum::Json(Page { items, next })
}
