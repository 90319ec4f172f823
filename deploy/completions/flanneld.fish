# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_flanneld_global_optspecs
    string join \n iface= iface-regex= iface-can-reach= public-ip= public-ipv6= lease-db= kube-subnet-mgr= net-config-path= subnet-lease-renew-margin= etcd-endpoints= etcd-prefix= etcd-keyfile= etcd-certfile= etcd-cafile= etcd-username= etcd-password= kube-api-url= kubeconfig-file= kube-annotation-prefix= set-node-network-unavailable= ip-masq= ip-masq-fully-random-disable= iptables-forward-rules= table-ownership= table-prefix= iptables-resync= ip-blackhole-route= subnet-file= healthz-ip= healthz-port= v= vmodule= log_backtrace_at= log-format= version= help=
end

function __fish_flanneld_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_flanneld_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_flanneld_using_subcommand
    set -l cmd (__fish_flanneld_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c flanneld -n "__fish_flanneld_needs_command" -l iface -d 'Interface that carries traffic between nodes, by name or by an address it has; repeat it, first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l iface-regex -d 'Regular expression for that interface, tried on addresses, then on names, after all of --iface; repeat it' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l iface-can-reach -d 'Use the interface that packets to this address leave by; tried last' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l public-ip -d 'IPv4 address that other nodes send to. Default: that of the interface. Without --iface, also chooses the interface' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l public-ipv6 -d 'IPv6 address that other nodes send to; otherwise as --public-ip' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l lease-db -d 'Keep leases in this SQLite file, shared by the daemons of one machine' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l kube-subnet-mgr -d 'Keep leases on the Kubernetes nodes, as annotations. NODE_NAME, or POD_NAME and POD_NAMESPACE, say which node this is' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l net-config-path -d 'File with the cluster\'s networks and backend; with etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l subnet-lease-renew-margin -d 'Minutes before a lease ends at which to renew it, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-endpoints -d 'Servers, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-prefix -d 'Prefix of all keys' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-keyfile -d 'Private key of the client certificate (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-certfile -d 'Client certificate (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-cafile -d 'Authority that signed the servers\' certificates (PEM); may be given alone' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-username -d 'User name' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-password -d 'Password; better given as FLANNELD_ETCD_PASSWORD, which a process list does not show' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l kube-api-url -d 'URL of the API server. Default: that of the kubeconfig, else that of the cluster this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l kubeconfig-file -d 'kubeconfig file' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l kube-annotation-prefix -d 'Prefix of the node annotations' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False once ready' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l ip-masq-fully-random-disable -d 'Let masquerading keep source ports where it can instead of choosing them at random' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l iptables-forward-rules -d 'Accept forwarded pod traffic' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l table-ownership -d 'Who may change flannel\'s nftables tables besides the daemon: anybody (shared), nobody (owner; Linux 6.9), or owner where the kernel has it (auto)' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l table-prefix -d 'Prefix for nftables table names; must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if another network\'s flanneld has the tables of that name' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l iptables-resync -d 'Seconds between two full checks of what the kernel holds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l ip-blackhole-route -d 'Drop packets for pods that do not exist instead of sending them on: a blackhole route for the node\'s subnet' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l subnet-file -d 'File that tells the CNI plugin this node\'s subnet and MTU' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l healthz-ip -d 'Address to serve /healthz and /readyz on. 0.0.0.0, :: or empty: every address, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l healthz-port -d 'Port to serve them on; 0: do not' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l v -d 'Detail of the log: 0 says what changed, 2 adds each object, 5 each step' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l vmodule -d 'Other levels for some source files: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l log_backtrace_at -d 'Add a stack trace to what this source line logs' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l log-format -d 'Form of the log: klog\'s text, or a JSON object on each line' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l version -d 'Print the version on stderr and leave' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l help -d 'Print this on stdout and leave' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -f -a "status" -d 'Tell how the daemon of this node is'
complete -c flanneld -n "__fish_flanneld_needs_command" -f -a "plan" -d 'Show what a start with these flags would change on this host'
complete -c flanneld -n "__fish_flanneld_needs_command" -f -a "doctor" -d 'Look for what keeps pods from reaching each other, and say what to do'
complete -c flanneld -n "__fish_flanneld_needs_command" -f -a "cleanup" -d 'Remove what flanneld made on this host'
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l o -d 'Form of the status: lines to read, or one JSON object' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l peers -d 'List every peer, not only those that are not programmed; JSON has them all' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l iface -d 'Interface that carries traffic between nodes, by name or by an address it has; repeat it, first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l iface-regex -d 'Regular expression for that interface, tried on addresses, then on names, after all of --iface; repeat it' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l iface-can-reach -d 'Use the interface that packets to this address leave by; tried last' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l public-ip -d 'IPv4 address that other nodes send to. Default: that of the interface. Without --iface, also chooses the interface' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l public-ipv6 -d 'IPv6 address that other nodes send to; otherwise as --public-ip' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l lease-db -d 'Keep leases in this SQLite file, shared by the daemons of one machine' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l kube-subnet-mgr -d 'Keep leases on the Kubernetes nodes, as annotations. NODE_NAME, or POD_NAME and POD_NAMESPACE, say which node this is' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l net-config-path -d 'File with the cluster\'s networks and backend; with etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l subnet-lease-renew-margin -d 'Minutes before a lease ends at which to renew it, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-endpoints -d 'Servers, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-prefix -d 'Prefix of all keys' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-keyfile -d 'Private key of the client certificate (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-certfile -d 'Client certificate (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-cafile -d 'Authority that signed the servers\' certificates (PEM); may be given alone' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-username -d 'User name' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-password -d 'Password; better given as FLANNELD_ETCD_PASSWORD, which a process list does not show' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l kube-api-url -d 'URL of the API server. Default: that of the kubeconfig, else that of the cluster this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l kubeconfig-file -d 'kubeconfig file' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l kube-annotation-prefix -d 'Prefix of the node annotations' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False once ready' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l ip-masq-fully-random-disable -d 'Let masquerading keep source ports where it can instead of choosing them at random' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l iptables-forward-rules -d 'Accept forwarded pod traffic' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l table-ownership -d 'Who may change flannel\'s nftables tables besides the daemon: anybody (shared), nobody (owner; Linux 6.9), or owner where the kernel has it (auto)' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l table-prefix -d 'Prefix for nftables table names; must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if another network\'s flanneld has the tables of that name' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l iptables-resync -d 'Seconds between two full checks of what the kernel holds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l ip-blackhole-route -d 'Drop packets for pods that do not exist instead of sending them on: a blackhole route for the node\'s subnet' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l subnet-file -d 'File that tells the CNI plugin this node\'s subnet and MTU' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l healthz-ip -d 'Address to serve /healthz and /readyz on. 0.0.0.0, :: or empty: every address, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l healthz-port -d 'Port to serve them on; 0: do not' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l v -d 'Detail of the log: 0 says what changed, 2 adds each object, 5 each step' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l vmodule -d 'Other levels for some source files: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l log_backtrace_at -d 'Add a stack trace to what this source line logs' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l log-format -d 'Form of the log: klog\'s text, or a JSON object on each line' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l version -d 'Print the version on stderr and leave' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l help -d 'Print this on stdout and leave' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l iface -d 'Interface that carries traffic between nodes, by name or by an address it has; repeat it, first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l iface-regex -d 'Regular expression for that interface, tried on addresses, then on names, after all of --iface; repeat it' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l iface-can-reach -d 'Use the interface that packets to this address leave by; tried last' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l public-ip -d 'IPv4 address that other nodes send to. Default: that of the interface. Without --iface, also chooses the interface' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l public-ipv6 -d 'IPv6 address that other nodes send to; otherwise as --public-ip' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l lease-db -d 'Keep leases in this SQLite file, shared by the daemons of one machine' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l kube-subnet-mgr -d 'Keep leases on the Kubernetes nodes, as annotations. NODE_NAME, or POD_NAME and POD_NAMESPACE, say which node this is' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l net-config-path -d 'File with the cluster\'s networks and backend; with etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l subnet-lease-renew-margin -d 'Minutes before a lease ends at which to renew it, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-endpoints -d 'Servers, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-prefix -d 'Prefix of all keys' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-keyfile -d 'Private key of the client certificate (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-certfile -d 'Client certificate (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-cafile -d 'Authority that signed the servers\' certificates (PEM); may be given alone' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-username -d 'User name' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-password -d 'Password; better given as FLANNELD_ETCD_PASSWORD, which a process list does not show' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l kube-api-url -d 'URL of the API server. Default: that of the kubeconfig, else that of the cluster this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l kubeconfig-file -d 'kubeconfig file' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l kube-annotation-prefix -d 'Prefix of the node annotations' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False once ready' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l ip-masq-fully-random-disable -d 'Let masquerading keep source ports where it can instead of choosing them at random' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l iptables-forward-rules -d 'Accept forwarded pod traffic' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l table-ownership -d 'Who may change flannel\'s nftables tables besides the daemon: anybody (shared), nobody (owner; Linux 6.9), or owner where the kernel has it (auto)' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l table-prefix -d 'Prefix for nftables table names; must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if another network\'s flanneld has the tables of that name' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l iptables-resync -d 'Seconds between two full checks of what the kernel holds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l ip-blackhole-route -d 'Drop packets for pods that do not exist instead of sending them on: a blackhole route for the node\'s subnet' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l subnet-file -d 'File that tells the CNI plugin this node\'s subnet and MTU' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l healthz-ip -d 'Address to serve /healthz and /readyz on. 0.0.0.0, :: or empty: every address, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l healthz-port -d 'Port to serve them on; 0: do not' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l v -d 'Detail of the log: 0 says what changed, 2 adds each object, 5 each step' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l vmodule -d 'Other levels for some source files: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l log_backtrace_at -d 'Add a stack trace to what this source line logs' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l log-format -d 'Form of the log: klog\'s text, or a JSON object on each line' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l version -d 'Print the version on stderr and leave' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l help -d 'Print this on stdout and leave' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l o -d 'Form of the findings: lines to read, or one JSON array' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l preflight -d 'Report whether this program can take over from upstream\'s daemon, and what that changes. Sends nothing' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l iface -d 'Interface that carries traffic between nodes, by name or by an address it has; repeat it, first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l iface-regex -d 'Regular expression for that interface, tried on addresses, then on names, after all of --iface; repeat it' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l iface-can-reach -d 'Use the interface that packets to this address leave by; tried last' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l public-ip -d 'IPv4 address that other nodes send to. Default: that of the interface. Without --iface, also chooses the interface' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l public-ipv6 -d 'IPv6 address that other nodes send to; otherwise as --public-ip' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l lease-db -d 'Keep leases in this SQLite file, shared by the daemons of one machine' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l kube-subnet-mgr -d 'Keep leases on the Kubernetes nodes, as annotations. NODE_NAME, or POD_NAME and POD_NAMESPACE, say which node this is' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l net-config-path -d 'File with the cluster\'s networks and backend; with etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l subnet-lease-renew-margin -d 'Minutes before a lease ends at which to renew it, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-endpoints -d 'Servers, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-prefix -d 'Prefix of all keys' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-keyfile -d 'Private key of the client certificate (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-certfile -d 'Client certificate (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-cafile -d 'Authority that signed the servers\' certificates (PEM); may be given alone' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-username -d 'User name' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-password -d 'Password; better given as FLANNELD_ETCD_PASSWORD, which a process list does not show' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l kube-api-url -d 'URL of the API server. Default: that of the kubeconfig, else that of the cluster this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l kubeconfig-file -d 'kubeconfig file' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l kube-annotation-prefix -d 'Prefix of the node annotations' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False once ready' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l ip-masq-fully-random-disable -d 'Let masquerading keep source ports where it can instead of choosing them at random' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l iptables-forward-rules -d 'Accept forwarded pod traffic' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l table-ownership -d 'Who may change flannel\'s nftables tables besides the daemon: anybody (shared), nobody (owner; Linux 6.9), or owner where the kernel has it (auto)' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l table-prefix -d 'Prefix for nftables table names; must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if another network\'s flanneld has the tables of that name' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l iptables-resync -d 'Seconds between two full checks of what the kernel holds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l ip-blackhole-route -d 'Drop packets for pods that do not exist instead of sending them on: a blackhole route for the node\'s subnet' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l subnet-file -d 'File that tells the CNI plugin this node\'s subnet and MTU' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l healthz-ip -d 'Address to serve /healthz and /readyz on. 0.0.0.0, :: or empty: every address, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l healthz-port -d 'Port to serve them on; 0: do not' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l v -d 'Detail of the log: 0 says what changed, 2 adds each object, 5 each step' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l vmodule -d 'Other levels for some source files: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l log_backtrace_at -d 'Add a stack trace to what this source line logs' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l log-format -d 'Form of the log: klog\'s text, or a JSON object on each line' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l version -d 'Print the version on stderr and leave' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l help -d 'Print this on stdout and leave' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l dry-run -d 'Only print what would be removed' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l upstream -d 'Also remove the iptables chains and rules that upstream\'s iptables mode leaves' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l files -d 'Also remove --subnet-file and the state file beside it: the next start may get another subnet' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l cni-config -d 'Also remove this CNI configuration if it names the plugin flannel: /etc/cni/net.d/10-flannel.conflist' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l stay -d 'Run until SIGTERM once everything is removed: Kubernetes restarts the pods of a DaemonSet that end' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l force -d 'Even while a daemon runs here, which would put everything back' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l iface -d 'Interface that carries traffic between nodes, by name or by an address it has; repeat it, first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l iface-regex -d 'Regular expression for that interface, tried on addresses, then on names, after all of --iface; repeat it' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l iface-can-reach -d 'Use the interface that packets to this address leave by; tried last' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l public-ip -d 'IPv4 address that other nodes send to. Default: that of the interface. Without --iface, also chooses the interface' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l public-ipv6 -d 'IPv6 address that other nodes send to; otherwise as --public-ip' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l lease-db -d 'Keep leases in this SQLite file, shared by the daemons of one machine' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l kube-subnet-mgr -d 'Keep leases on the Kubernetes nodes, as annotations. NODE_NAME, or POD_NAME and POD_NAMESPACE, say which node this is' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l net-config-path -d 'File with the cluster\'s networks and backend; with etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l subnet-lease-renew-margin -d 'Minutes before a lease ends at which to renew it, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-endpoints -d 'Servers, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-prefix -d 'Prefix of all keys' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-keyfile -d 'Private key of the client certificate (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-certfile -d 'Client certificate (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-cafile -d 'Authority that signed the servers\' certificates (PEM); may be given alone' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-username -d 'User name' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-password -d 'Password; better given as FLANNELD_ETCD_PASSWORD, which a process list does not show' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l kube-api-url -d 'URL of the API server. Default: that of the kubeconfig, else that of the cluster this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l kubeconfig-file -d 'kubeconfig file' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l kube-annotation-prefix -d 'Prefix of the node annotations' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False once ready' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l ip-masq-fully-random-disable -d 'Let masquerading keep source ports where it can instead of choosing them at random' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l iptables-forward-rules -d 'Accept forwarded pod traffic' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l table-ownership -d 'Who may change flannel\'s nftables tables besides the daemon: anybody (shared), nobody (owner; Linux 6.9), or owner where the kernel has it (auto)' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l table-prefix -d 'Prefix for nftables table names; must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if another network\'s flanneld has the tables of that name' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l iptables-resync -d 'Seconds between two full checks of what the kernel holds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l ip-blackhole-route -d 'Drop packets for pods that do not exist instead of sending them on: a blackhole route for the node\'s subnet' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l subnet-file -d 'File that tells the CNI plugin this node\'s subnet and MTU' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l healthz-ip -d 'Address to serve /healthz and /readyz on. 0.0.0.0, :: or empty: every address, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l healthz-port -d 'Port to serve them on; 0: do not' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l v -d 'Detail of the log: 0 says what changed, 2 adds each object, 5 each step' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l vmodule -d 'Other levels for some source files: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l log_backtrace_at -d 'Add a stack trace to what this source line logs' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l log-format -d 'Form of the log: klog\'s text, or a JSON object on each line' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l version -d 'Print the version on stderr and leave' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l help -d 'Print this on stdout and leave' -r
