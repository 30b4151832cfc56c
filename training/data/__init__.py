"""What a stage learns from: the data kit, published layouts, one's own files, shards, frames in memory."""
