//! The cluster: its nodes, and what an operator does with them. What a node is told is read by it with its next beat,
//! wherever it was said.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};

use crate::control::Control;
use crate::extract::{Actor, Name};
use crate::problem::Problem;
use crate::types::{ClusterView, NodeView};

pub(crate) fn routes<C: Control>() -> Router<C> {
    Router::new()
        .route("/api/cluster", get(show::<C>))
        .route("/api/cluster/nodes/{name}", get(node::<C>).delete(remove::<C>))
        .route("/api/cluster/nodes/{name}/drain", post(drain::<C>))
        .route("/api/cluster/nodes/{name}/resume", post(resume::<C>))
}

/// On record stands also at which node somebody called: users of the same name and number are others elsewhere.
pub(crate) async fn name_node<C: Control>(
    State(control): State<C>,
    mut request: Request,
    next: Next,
) -> Response {
    if let (Some(node), Some(Actor(by))) = (control.node(), request.extensions_mut().get_mut::<Actor>()) {
        *by = format!("{by} at {node}");
    }
    next.run(request).await
}

async fn show<C: Control>(State(control): State<C>) -> Result<axum::Json<ClusterView>, Problem> {
    control.cluster().await.map(axum::Json)
}

async fn node<C: Control>(
    State(control): State<C>,
    Name(name): Name,
) -> Result<axum::Json<NodeView>, Problem> {
    find(&control, &name).await.map(axum::Json)
}

async fn drain<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
) -> Result<axum::Json<NodeView>, Problem> {
    control.drain(&name, true, &by).await?;
    find(&control, &name).await.map(axum::Json)
}

async fn resume<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
) -> Result<axum::Json<NodeView>, Problem> {
    control.drain(&name, false, &by).await?;
    find(&control, &name).await.map(axum::Json)
}

async fn remove<C: Control>(
    State(control): State<C>,
    Actor(by): Actor,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    control.forget_node(&name, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find<C: Control>(control: &C, name: &str) -> Result<NodeView, Problem> {
    let found = control.cluster().await?.nodes.into_iter().find(|node| node.name == name);
    found.ok_or_else(|| Problem::not_found(format!("there is no node {name:?}")))
}
