//! What comes over sockets is not believed: frames of workers, of the node and of the template, whatever they hold.

mod actors;
mod decoding;
mod frames;
mod intruder;
mod saying;
mod stage;
