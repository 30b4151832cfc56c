"""Training data of a stage: the data kit, published layouts, the user's files, shards, frames in memory."""
