//! One connection.
use crate::session::Statements;

pub(crate) struct Connection {
    client: tokio_postgres::Client,
    statements: Statements,
}

impl Connection {
    pub(crate) fn client(&self) -> &tokio_postgres::Client {
        &self.client
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.statements
    }
}
