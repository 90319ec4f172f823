//! Small complete programs that embed `flannel-nft` and `flannel-vxlan`; each `[[example]]` is one file beside this one.
