//! What happens to servers.
