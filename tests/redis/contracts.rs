//! The contracts of every store.

use crate::server::OnServer;

crate::contracts!(OnServer::new());
