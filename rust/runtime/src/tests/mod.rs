//! What comes over sockets is not believed: frames of workers, of the node and of the template, whatever they hold. And
//! who runs the loop (`leading`).

mod actors;
mod decoding;
mod frames;
mod intruder;
mod leading;
mod saying;
mod stage;
