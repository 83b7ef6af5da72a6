"""Facts of the Qwen3-VL family: configuration, pictures, positions; numpy and Pillow only."""
