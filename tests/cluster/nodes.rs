//! The whole relay as a cluster: machines with a relay each before machines with an engine each, clients that write down what
//! they were promised, and a next hop that writes down what it was given.
//!
//! Every scenario ends in the same judgement: what was acknowledged was delivered or reported, nothing is left behind, and a
//! message came twice only from a node that was killed, frozen or cut off while it could not tell.

mod arrivals;
mod driver;
mod figures;
mod full;
mod judge;
mod short;
mod world;
