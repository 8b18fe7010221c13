import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import TensorDict

# Configure Yuanrong backend
# User-provided config will be merged with TransferQueue's default config.yaml.
# Specified fields override defaults; unspecified fields retain default values.
conf = OmegaConf.create({"backend": {"storage_backend": "Yuanrong"}})

# Initialize TransferQueue + Yuanrong
tq.init(conf)

# Put data using kv_put
data = TensorDict({"input": torch.randn(2, 10)}, batch_size=[2])
tq.kv_batch_put(keys=["sample_0", "sample_1"], partition_id="train", fields=data)

# Get data using kv_batch_get
result = tq.kv_batch_get(keys=["sample_0", "sample_1"], partition_id="train")
print("output:", result)

# Cleanup
tq.close()
