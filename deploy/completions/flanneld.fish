# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_flanneld_global_optspecs
    string join \n iface= iface-regex= iface-can-reach= public-ip= public-ipv6= lease-db= kube-subnet-mgr= net-config-path= subnet-lease-renew-margin= etcd-endpoints= etcd-prefix= etcd-keyfile= etcd-certfile= etcd-cafile= etcd-username= etcd-password= kube-api-url= kubeconfig-file= kube-annotation-prefix= set-node-network-unavailable= ip-masq= ip-masq-fully-random-disable= iptables-forward-rules= table-ownership= table-prefix= iptables-resync= ip-blackhole-route= subnet-file= healthz-ip= healthz-port= v= vmodule= log_backtrace_at= log-format= logtostderr= alsologtostderr= stderrthreshold= version= help=
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

complete -c flanneld -n "__fish_flanneld_needs_command" -l iface -d 'Interface that carries traffic between nodes, by name or by one of its addresses. Repeatable; the first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l iface-regex -d 'Regular expression for the interface that carries traffic between nodes, matched against addresses, then names, after every --iface. Repeatable' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l iface-can-reach -d 'Use the interface of the route to this address, if --iface and --iface-regex match nothing' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l public-ip -d 'IPv4 address that other nodes send to. Without --iface, it also selects the interface. Default: the interface\'s address' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l public-ipv6 -d 'IPv6 address that other nodes send to; see --public-ip' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l lease-db -d 'Store leases in this SQLite file, which the daemons of one machine share' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l kube-subnet-mgr -d 'Store leases as annotations of the Kubernetes nodes. NODE_NAME, or POD_NAME and POD_NAMESPACE, identify this node' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l net-config-path -d 'File with the cluster\'s networks and backend. With etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l subnet-lease-renew-margin -d 'Renew a lease this many minutes before it expires, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-endpoints -d 'URLs of the etcd members, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-prefix -d 'Prefix of all keys, the same on every node of the cluster: PREFIX/config has the network configuration, PREFIX/subnets the leases' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-keyfile -d 'Private key of the certificate in --etcd-certfile (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-certfile -d 'Client certificate that flanneld presents to etcd (PEM). Needs --etcd-keyfile' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-cafile -d 'CA certificates that the servers\' certificates are verified with (PEM); works without a client certificate' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-username -d 'User that flanneld logs in to etcd as, if etcd requires authentication. Default: no login' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l etcd-password -d 'Password of --etcd-username. Prefer FLANNELD_ETCD_PASSWORD: a process list shows flags until flanneld has moved the password away' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l kube-api-url -d 'URL of the API server. Overrides the server in --kubeconfig-file. Default: that server, otherwise the API server of the cluster that this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l kubeconfig-file -d 'kubeconfig file with the API server, its CA and flanneld\'s credentials, for a flanneld that runs outside of a pod. --kube-api-url overrides its server. Default: the service account of this pod; no credentials if only --kube-api-url is given' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l kube-annotation-prefix -d 'Prefix of the node annotations that hold the leases, the same on every node of the cluster' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False when flanneld becomes ready' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l ip-masq-fully-random-disable -d 'Keep source ports where possible when masquerading, instead of choosing random ports' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l iptables-forward-rules -d 'Add rules that accept forwarded packets from and to the pod network; another chain may still drop them' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l table-ownership -d 'Which processes may change flannel\'s nftables tables: every privileged process (shared), only flanneld (owner; Linux 6.9 or later), or owner where the kernel supports it (auto)' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l table-prefix -d 'Prefix for nftables table names. Must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if the flanneld of another network uses these tables' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l iptables-resync -d 'Compare the rules with the kernel\'s every SECONDS seconds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l ip-blackhole-route -d 'Add a blackhole route for the node\'s subnet, so that the kernel drops packets for pods that do not exist' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l subnet-file -d 'File that passes this node\'s subnet and MTU to the CNI plugin' -r -F
complete -c flanneld -n "__fish_flanneld_needs_command" -l healthz-ip -d 'Address of the HTTP server for /healthz, /readyz and /metrics. 0.0.0.0, :: and empty: all addresses, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l healthz-port -d 'Port of the HTTP server for /healthz, /readyz and /metrics. 0 turns the server off' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l v -d 'Log verbosity: 0 logs changes, 2 adds each object, 5 adds each step' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l vmodule -d 'Log verbosity by source file: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l log_backtrace_at -d 'Add a stack trace to the messages of this source line (tls.rs:144); only builds for development have it' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l log-format -d 'Log format: klog\'s text, or one JSON object per line' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l logtostderr -d 'glog\'s flags in units of old versions: accepted with a warning, the log always goes to stderr' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l alsologtostderr -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l stderrthreshold -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l version -d 'Print the version on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -l help -d 'Print this help on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_needs_command" -f -a "status" -d 'Show the status of this node\'s daemon'
complete -c flanneld -n "__fish_flanneld_needs_command" -f -a "plan" -d 'Show what a start with these flags would change on this host'
complete -c flanneld -n "__fish_flanneld_needs_command" -f -a "doctor" -d 'Find what keeps pods from reaching each other, and show what to do'
complete -c flanneld -n "__fish_flanneld_needs_command" -f -a "manifest" -d 'Print the Kubernetes objects that run flanneld on every node'
complete -c flanneld -n "__fish_flanneld_needs_command" -f -a "cleanup" -d 'Remove what flanneld created on this host'
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l o -d 'Output format: text, or one JSON object' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l peers -d 'List all peers instead of those that are not programmed. JSON always lists all' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l iface -d 'Interface that carries traffic between nodes, by name or by one of its addresses. Repeatable; the first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l iface-regex -d 'Regular expression for the interface that carries traffic between nodes, matched against addresses, then names, after every --iface. Repeatable' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l iface-can-reach -d 'Use the interface of the route to this address, if --iface and --iface-regex match nothing' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l public-ip -d 'IPv4 address that other nodes send to. Without --iface, it also selects the interface. Default: the interface\'s address' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l public-ipv6 -d 'IPv6 address that other nodes send to; see --public-ip' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l lease-db -d 'Store leases in this SQLite file, which the daemons of one machine share' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l kube-subnet-mgr -d 'Store leases as annotations of the Kubernetes nodes. NODE_NAME, or POD_NAME and POD_NAMESPACE, identify this node' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l net-config-path -d 'File with the cluster\'s networks and backend. With etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l subnet-lease-renew-margin -d 'Renew a lease this many minutes before it expires, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-endpoints -d 'URLs of the etcd members, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-prefix -d 'Prefix of all keys, the same on every node of the cluster: PREFIX/config has the network configuration, PREFIX/subnets the leases' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-keyfile -d 'Private key of the certificate in --etcd-certfile (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-certfile -d 'Client certificate that flanneld presents to etcd (PEM). Needs --etcd-keyfile' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-cafile -d 'CA certificates that the servers\' certificates are verified with (PEM); works without a client certificate' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-username -d 'User that flanneld logs in to etcd as, if etcd requires authentication. Default: no login' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l etcd-password -d 'Password of --etcd-username. Prefer FLANNELD_ETCD_PASSWORD: a process list shows flags until flanneld has moved the password away' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l kube-api-url -d 'URL of the API server. Overrides the server in --kubeconfig-file. Default: that server, otherwise the API server of the cluster that this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l kubeconfig-file -d 'kubeconfig file with the API server, its CA and flanneld\'s credentials, for a flanneld that runs outside of a pod. --kube-api-url overrides its server. Default: the service account of this pod; no credentials if only --kube-api-url is given' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l kube-annotation-prefix -d 'Prefix of the node annotations that hold the leases, the same on every node of the cluster' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False when flanneld becomes ready' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l ip-masq-fully-random-disable -d 'Keep source ports where possible when masquerading, instead of choosing random ports' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l iptables-forward-rules -d 'Add rules that accept forwarded packets from and to the pod network; another chain may still drop them' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l table-ownership -d 'Which processes may change flannel\'s nftables tables: every privileged process (shared), only flanneld (owner; Linux 6.9 or later), or owner where the kernel supports it (auto)' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l table-prefix -d 'Prefix for nftables table names. Must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if the flanneld of another network uses these tables' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l iptables-resync -d 'Compare the rules with the kernel\'s every SECONDS seconds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l ip-blackhole-route -d 'Add a blackhole route for the node\'s subnet, so that the kernel drops packets for pods that do not exist' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l subnet-file -d 'File that passes this node\'s subnet and MTU to the CNI plugin' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l healthz-ip -d 'Address of the HTTP server for /healthz, /readyz and /metrics. 0.0.0.0, :: and empty: all addresses, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l healthz-port -d 'Port of the HTTP server for /healthz, /readyz and /metrics. 0 turns the server off' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l v -d 'Log verbosity: 0 logs changes, 2 adds each object, 5 adds each step' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l vmodule -d 'Log verbosity by source file: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l log_backtrace_at -d 'Add a stack trace to the messages of this source line (tls.rs:144); only builds for development have it' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l log-format -d 'Log format: klog\'s text, or one JSON object per line' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l logtostderr -d 'glog\'s flags in units of old versions: accepted with a warning, the log always goes to stderr' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l alsologtostderr -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l stderrthreshold -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l version -d 'Print the version on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand status" -l help -d 'Print this help on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l iface -d 'Interface that carries traffic between nodes, by name or by one of its addresses. Repeatable; the first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l iface-regex -d 'Regular expression for the interface that carries traffic between nodes, matched against addresses, then names, after every --iface. Repeatable' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l iface-can-reach -d 'Use the interface of the route to this address, if --iface and --iface-regex match nothing' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l public-ip -d 'IPv4 address that other nodes send to. Without --iface, it also selects the interface. Default: the interface\'s address' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l public-ipv6 -d 'IPv6 address that other nodes send to; see --public-ip' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l lease-db -d 'Store leases in this SQLite file, which the daemons of one machine share' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l kube-subnet-mgr -d 'Store leases as annotations of the Kubernetes nodes. NODE_NAME, or POD_NAME and POD_NAMESPACE, identify this node' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l net-config-path -d 'File with the cluster\'s networks and backend. With etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l subnet-lease-renew-margin -d 'Renew a lease this many minutes before it expires, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-endpoints -d 'URLs of the etcd members, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-prefix -d 'Prefix of all keys, the same on every node of the cluster: PREFIX/config has the network configuration, PREFIX/subnets the leases' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-keyfile -d 'Private key of the certificate in --etcd-certfile (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-certfile -d 'Client certificate that flanneld presents to etcd (PEM). Needs --etcd-keyfile' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-cafile -d 'CA certificates that the servers\' certificates are verified with (PEM); works without a client certificate' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-username -d 'User that flanneld logs in to etcd as, if etcd requires authentication. Default: no login' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l etcd-password -d 'Password of --etcd-username. Prefer FLANNELD_ETCD_PASSWORD: a process list shows flags until flanneld has moved the password away' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l kube-api-url -d 'URL of the API server. Overrides the server in --kubeconfig-file. Default: that server, otherwise the API server of the cluster that this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l kubeconfig-file -d 'kubeconfig file with the API server, its CA and flanneld\'s credentials, for a flanneld that runs outside of a pod. --kube-api-url overrides its server. Default: the service account of this pod; no credentials if only --kube-api-url is given' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l kube-annotation-prefix -d 'Prefix of the node annotations that hold the leases, the same on every node of the cluster' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False when flanneld becomes ready' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l ip-masq-fully-random-disable -d 'Keep source ports where possible when masquerading, instead of choosing random ports' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l iptables-forward-rules -d 'Add rules that accept forwarded packets from and to the pod network; another chain may still drop them' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l table-ownership -d 'Which processes may change flannel\'s nftables tables: every privileged process (shared), only flanneld (owner; Linux 6.9 or later), or owner where the kernel supports it (auto)' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l table-prefix -d 'Prefix for nftables table names. Must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if the flanneld of another network uses these tables' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l iptables-resync -d 'Compare the rules with the kernel\'s every SECONDS seconds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l ip-blackhole-route -d 'Add a blackhole route for the node\'s subnet, so that the kernel drops packets for pods that do not exist' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l subnet-file -d 'File that passes this node\'s subnet and MTU to the CNI plugin' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l healthz-ip -d 'Address of the HTTP server for /healthz, /readyz and /metrics. 0.0.0.0, :: and empty: all addresses, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l healthz-port -d 'Port of the HTTP server for /healthz, /readyz and /metrics. 0 turns the server off' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l v -d 'Log verbosity: 0 logs changes, 2 adds each object, 5 adds each step' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l vmodule -d 'Log verbosity by source file: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l log_backtrace_at -d 'Add a stack trace to the messages of this source line (tls.rs:144); only builds for development have it' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l log-format -d 'Log format: klog\'s text, or one JSON object per line' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l logtostderr -d 'glog\'s flags in units of old versions: accepted with a warning, the log always goes to stderr' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l alsologtostderr -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l stderrthreshold -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l version -d 'Print the version on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand plan" -l help -d 'Print this help on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l o -d 'Output format: text, or one JSON array' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l preflight -d 'Report whether flanneld can take over from upstream\'s daemon on this host, and what that changes. Sends nothing to other nodes' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l collect -d 'Write an archive (tar) for a bug report to this file: flags, configuration, leases, status, findings, rules, plan, metrics, routes. Contains no secrets' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l iface -d 'Interface that carries traffic between nodes, by name or by one of its addresses. Repeatable; the first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l iface-regex -d 'Regular expression for the interface that carries traffic between nodes, matched against addresses, then names, after every --iface. Repeatable' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l iface-can-reach -d 'Use the interface of the route to this address, if --iface and --iface-regex match nothing' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l public-ip -d 'IPv4 address that other nodes send to. Without --iface, it also selects the interface. Default: the interface\'s address' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l public-ipv6 -d 'IPv6 address that other nodes send to; see --public-ip' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l lease-db -d 'Store leases in this SQLite file, which the daemons of one machine share' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l kube-subnet-mgr -d 'Store leases as annotations of the Kubernetes nodes. NODE_NAME, or POD_NAME and POD_NAMESPACE, identify this node' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l net-config-path -d 'File with the cluster\'s networks and backend. With etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l subnet-lease-renew-margin -d 'Renew a lease this many minutes before it expires, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-endpoints -d 'URLs of the etcd members, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-prefix -d 'Prefix of all keys, the same on every node of the cluster: PREFIX/config has the network configuration, PREFIX/subnets the leases' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-keyfile -d 'Private key of the certificate in --etcd-certfile (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-certfile -d 'Client certificate that flanneld presents to etcd (PEM). Needs --etcd-keyfile' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-cafile -d 'CA certificates that the servers\' certificates are verified with (PEM); works without a client certificate' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-username -d 'User that flanneld logs in to etcd as, if etcd requires authentication. Default: no login' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l etcd-password -d 'Password of --etcd-username. Prefer FLANNELD_ETCD_PASSWORD: a process list shows flags until flanneld has moved the password away' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l kube-api-url -d 'URL of the API server. Overrides the server in --kubeconfig-file. Default: that server, otherwise the API server of the cluster that this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l kubeconfig-file -d 'kubeconfig file with the API server, its CA and flanneld\'s credentials, for a flanneld that runs outside of a pod. --kube-api-url overrides its server. Default: the service account of this pod; no credentials if only --kube-api-url is given' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l kube-annotation-prefix -d 'Prefix of the node annotations that hold the leases, the same on every node of the cluster' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False when flanneld becomes ready' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l ip-masq-fully-random-disable -d 'Keep source ports where possible when masquerading, instead of choosing random ports' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l iptables-forward-rules -d 'Add rules that accept forwarded packets from and to the pod network; another chain may still drop them' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l table-ownership -d 'Which processes may change flannel\'s nftables tables: every privileged process (shared), only flanneld (owner; Linux 6.9 or later), or owner where the kernel supports it (auto)' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l table-prefix -d 'Prefix for nftables table names. Must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if the flanneld of another network uses these tables' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l iptables-resync -d 'Compare the rules with the kernel\'s every SECONDS seconds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l ip-blackhole-route -d 'Add a blackhole route for the node\'s subnet, so that the kernel drops packets for pods that do not exist' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l subnet-file -d 'File that passes this node\'s subnet and MTU to the CNI plugin' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l healthz-ip -d 'Address of the HTTP server for /healthz, /readyz and /metrics. 0.0.0.0, :: and empty: all addresses, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l healthz-port -d 'Port of the HTTP server for /healthz, /readyz and /metrics. 0 turns the server off' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l v -d 'Log verbosity: 0 logs changes, 2 adds each object, 5 adds each step' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l vmodule -d 'Log verbosity by source file: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l log_backtrace_at -d 'Add a stack trace to the messages of this source line (tls.rs:144); only builds for development have it' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l log-format -d 'Log format: klog\'s text, or one JSON object per line' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l logtostderr -d 'glog\'s flags in units of old versions: accepted with a warning, the log always goes to stderr' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l alsologtostderr -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l stderrthreshold -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l version -d 'Print the version on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand doctor" -l help -d 'Print this help on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l image -d 'Image of the daemon. Default: flannel and the version of this program' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l network -d 'IPv4 network that pods get addresses from: the controller manager\'s --cluster-cidr. Default: 10.244.0.0/16, none if only --ipv6-network is given' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l ipv6-network -d 'IPv6 network that pods get addresses from. Default: none' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l backend -d 'How packets reach other nodes: vxlan, wireguard (encrypted), host-gw, ipip, udp or alloc' -r -f -a "vxlan\t''
wireguard\t''
host-gw\t''
ipip\t''
udp\t''
alloc\t''"
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l platform -d 'Where CNI plugins and their configuration are: /opt/cni/bin and /etc/cni/net.d (kubernetes), the folders of k3s, or as kubernetes with the reference plugins installed too (kind)' -r -f -a "kubernetes\t'`/opt/cni/bin` with the reference plugins, `/etc/cni/net.d`: kubeadm, RKE2, kubespray, kOps, Talos'
k3s\t'Folders of its own'
kind\t'No bridge plugin'"
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l iface -d 'Interface that carries traffic between nodes, by name or by one of its addresses. Repeatable; the first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l iface-regex -d 'Regular expression for the interface that carries traffic between nodes, matched against addresses, then names, after every --iface. Repeatable' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l iface-can-reach -d 'Use the interface of the route to this address, if --iface and --iface-regex match nothing' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l public-ip -d 'IPv4 address that other nodes send to. Without --iface, it also selects the interface. Default: the interface\'s address' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l public-ipv6 -d 'IPv6 address that other nodes send to; see --public-ip' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l lease-db -d 'Store leases in this SQLite file, which the daemons of one machine share' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l kube-subnet-mgr -d 'Store leases as annotations of the Kubernetes nodes. NODE_NAME, or POD_NAME and POD_NAMESPACE, identify this node' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l net-config-path -d 'File with the cluster\'s networks and backend. With etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l subnet-lease-renew-margin -d 'Renew a lease this many minutes before it expires, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l etcd-endpoints -d 'URLs of the etcd members, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l etcd-prefix -d 'Prefix of all keys, the same on every node of the cluster: PREFIX/config has the network configuration, PREFIX/subnets the leases' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l etcd-keyfile -d 'Private key of the certificate in --etcd-certfile (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l etcd-certfile -d 'Client certificate that flanneld presents to etcd (PEM). Needs --etcd-keyfile' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l etcd-cafile -d 'CA certificates that the servers\' certificates are verified with (PEM); works without a client certificate' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l etcd-username -d 'User that flanneld logs in to etcd as, if etcd requires authentication. Default: no login' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l etcd-password -d 'Password of --etcd-username. Prefer FLANNELD_ETCD_PASSWORD: a process list shows flags until flanneld has moved the password away' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l kube-api-url -d 'URL of the API server. Overrides the server in --kubeconfig-file. Default: that server, otherwise the API server of the cluster that this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l kubeconfig-file -d 'kubeconfig file with the API server, its CA and flanneld\'s credentials, for a flanneld that runs outside of a pod. --kube-api-url overrides its server. Default: the service account of this pod; no credentials if only --kube-api-url is given' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l kube-annotation-prefix -d 'Prefix of the node annotations that hold the leases, the same on every node of the cluster' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False when flanneld becomes ready' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l ip-masq-fully-random-disable -d 'Keep source ports where possible when masquerading, instead of choosing random ports' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l iptables-forward-rules -d 'Add rules that accept forwarded packets from and to the pod network; another chain may still drop them' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l table-ownership -d 'Which processes may change flannel\'s nftables tables: every privileged process (shared), only flanneld (owner; Linux 6.9 or later), or owner where the kernel supports it (auto)' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l table-prefix -d 'Prefix for nftables table names. Must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if the flanneld of another network uses these tables' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l iptables-resync -d 'Compare the rules with the kernel\'s every SECONDS seconds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l ip-blackhole-route -d 'Add a blackhole route for the node\'s subnet, so that the kernel drops packets for pods that do not exist' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l subnet-file -d 'File that passes this node\'s subnet and MTU to the CNI plugin' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l healthz-ip -d 'Address of the HTTP server for /healthz, /readyz and /metrics. 0.0.0.0, :: and empty: all addresses, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l healthz-port -d 'Port of the HTTP server for /healthz, /readyz and /metrics. 0 turns the server off' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l v -d 'Log verbosity: 0 logs changes, 2 adds each object, 5 adds each step' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l vmodule -d 'Log verbosity by source file: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l log_backtrace_at -d 'Add a stack trace to the messages of this source line (tls.rs:144); only builds for development have it' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l log-format -d 'Log format: klog\'s text, or one JSON object per line' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l logtostderr -d 'glog\'s flags in units of old versions: accepted with a warning, the log always goes to stderr' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l alsologtostderr -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l stderrthreshold -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l version -d 'Print the version on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand manifest" -l help -d 'Print this help on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l dry-run -d 'Print what would be removed, and remove nothing' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l upstream -d 'Also remove the iptables chains and rules that upstream\'s iptables mode leaves' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l files -d 'Also remove the subnet file and the state file. The next start may then get another subnet' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l cni-config -d 'Also remove this CNI configuration if it names the plugin flannel: /etc/cni/net.d/10-flannel.conflist' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l stay -d 'Run until SIGTERM once everything is removed: Kubernetes restarts the pods of a DaemonSet that end' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l force -d 'Remove even while a daemon runs on this host, although the daemon restores everything' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l iface -d 'Interface that carries traffic between nodes, by name or by one of its addresses. Repeatable; the first match wins. Default: the interface of the default route' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l iface-regex -d 'Regular expression for the interface that carries traffic between nodes, matched against addresses, then names, after every --iface. Repeatable' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l iface-can-reach -d 'Use the interface of the route to this address, if --iface and --iface-regex match nothing' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l public-ip -d 'IPv4 address that other nodes send to. Without --iface, it also selects the interface. Default: the interface\'s address' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l public-ipv6 -d 'IPv6 address that other nodes send to; see --public-ip' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l lease-db -d 'Store leases in this SQLite file, which the daemons of one machine share' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l kube-subnet-mgr -d 'Store leases as annotations of the Kubernetes nodes. NODE_NAME, or POD_NAME and POD_NAMESPACE, identify this node' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l net-config-path -d 'File with the cluster\'s networks and backend. With etcd they are in the store, under PREFIX/config' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l subnet-lease-renew-margin -d 'Renew a lease this many minutes before it expires, 1 to 1439' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-endpoints -d 'URLs of the etcd members, separated by commas' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-prefix -d 'Prefix of all keys, the same on every node of the cluster: PREFIX/config has the network configuration, PREFIX/subnets the leases' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-keyfile -d 'Private key of the certificate in --etcd-certfile (PEM)' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-certfile -d 'Client certificate that flanneld presents to etcd (PEM). Needs --etcd-keyfile' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-cafile -d 'CA certificates that the servers\' certificates are verified with (PEM); works without a client certificate' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-username -d 'User that flanneld logs in to etcd as, if etcd requires authentication. Default: no login' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l etcd-password -d 'Password of --etcd-username. Prefer FLANNELD_ETCD_PASSWORD: a process list shows flags until flanneld has moved the password away' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l kube-api-url -d 'URL of the API server. Overrides the server in --kubeconfig-file. Default: that server, otherwise the API server of the cluster that this pod runs in' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l kubeconfig-file -d 'kubeconfig file with the API server, its CA and flanneld\'s credentials, for a flanneld that runs outside of a pod. --kube-api-url overrides its server. Default: the service account of this pod; no credentials if only --kube-api-url is given' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l kube-annotation-prefix -d 'Prefix of the node annotations that hold the leases, the same on every node of the cluster' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l set-node-network-unavailable -d 'Set the node\'s condition NetworkUnavailable to False when flanneld becomes ready' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l ip-masq -d 'Masquerade traffic that leaves the pod network' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l ip-masq-fully-random-disable -d 'Keep source ports where possible when masquerading, instead of choosing random ports' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l iptables-forward-rules -d 'Add rules that accept forwarded packets from and to the pod network; another chain may still drop them' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l table-ownership -d 'Which processes may change flannel\'s nftables tables: every privileged process (shared), only flanneld (owner; Linux 6.9 or later), or owner where the kernel supports it (auto)' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l table-prefix -d 'Prefix for nftables table names. Must be unique among the flanneld processes of one host. Default: flannel, or flannel-NETWORK if the flanneld of another network uses these tables' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l iptables-resync -d 'Compare the rules with the kernel\'s every SECONDS seconds, at least 1' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l ip-blackhole-route -d 'Add a blackhole route for the node\'s subnet, so that the kernel drops packets for pods that do not exist' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l subnet-file -d 'File that passes this node\'s subnet and MTU to the CNI plugin' -r -F
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l healthz-ip -d 'Address of the HTTP server for /healthz, /readyz and /metrics. 0.0.0.0, :: and empty: all addresses, IPv4 and IPv6' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l healthz-port -d 'Port of the HTTP server for /healthz, /readyz and /metrics. 0 turns the server off' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l v -d 'Log verbosity: 0 logs changes, 2 adds each object, 5 adds each step' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l vmodule -d 'Log verbosity by source file: reconcile=4,lease*=2' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l log_backtrace_at -d 'Add a stack trace to the messages of this source line (tls.rs:144); only builds for development have it' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l log-format -d 'Log format: klog\'s text, or one JSON object per line' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l logtostderr -d 'glog\'s flags in units of old versions: accepted with a warning, the log always goes to stderr' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l alsologtostderr -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l stderrthreshold -d 'As `logtostderr`' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l version -d 'Print the version on stdout and exit' -r
complete -c flanneld -n "__fish_flanneld_using_subcommand cleanup" -l help -d 'Print this help on stdout and exit' -r
