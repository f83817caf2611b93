"""The engines that come with aemesh; they see what third-party plug-ins see."""
