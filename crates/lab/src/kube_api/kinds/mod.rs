//! The kinds served: each file has the row of the table and what is special about the kind.

pub(crate) mod endpoint_slices;
pub(crate) mod events;
pub(crate) mod namespaces;
pub(crate) mod nodes;
pub(crate) mod pods;
pub(crate) mod policies;
pub(crate) mod service_accounts;
pub(crate) mod services;
pub(crate) mod token_reviews;
