//! Peers that mean harm, written frame by frame, inside proper mutual TLS: whoever has a
//! pod has a certificate. Each attack must end its own connection or do no harm, in
//! bounded memory, and a second, honest connection must not notice.

mod ends;
mod frames;
mod on_clients;
mod on_servers;
mod victim;
