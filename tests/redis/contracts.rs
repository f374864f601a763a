//! The contracts of every store.

use crate::server::OnServer;

everfresh::store_contract_tests!(OnServer::new());
