"""Workers: the engine wrapped for a pod's Valkey queue and for RunPod serverless."""
