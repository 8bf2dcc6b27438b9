#!/bin/sh
# Makes one machine a node of the cluster. Safe to run again: a member stays a
# member and gets the newest binary; a step that is done changes nothing.
#
# The environment comes from the Vagrantfile: NODE_NAME, NODE_ROLE,
# NODE_ADDRESS, NODE_ATTRIBUTES ("k=v k=v"), FIRST_MASTER (address), HOSTS
# (lines for /etc/hosts), CLUSTER, VIP (may be empty). SHARED (default /vagrant)
# holds bin/appliance and carries the join tokens from the first master to the
# others.
set -eu

SHARED=${SHARED:-/vagrant}
JOIN=$SHARED/vagrant/.join
APPLIANCE=/usr/local/bin/appliance
DATA=/var/lib/appliance
WAIT=${WAIT:-120} # seconds to wait for the first master's token

say() { echo "provision: $*"; }
die() { echo "provision: $*" >&2; exit 1; }

for name in NODE_NAME NODE_ROLE NODE_ADDRESS FIRST_MASTER; do
	eval "value=\${$name:-}"
	[ -n "$value" ] || die "$name is not set: run this through 'vagrant provision'"
done
[ "$(id -u)" = 0 ] || die "this installs a service: run it as root"
case $NODE_ROLE in master | agent) ;; *) die "NODE_ROLE $NODE_ROLE is neither master nor agent" ;; esac

install_binary() {
	[ -x "$SHARED/bin/appliance" ] || die "$SHARED/bin/appliance is missing: run 'make build' on the host first"
	cmp -s "$SHARED/bin/appliance" "$APPLIANCE" && return
	mkdir -p "$(dirname "$APPLIANCE")"
	install -m 755 "$SHARED/bin/appliance" "$APPLIANCE.new"
	mv "$APPLIANCE.new" "$APPLIANCE" # a running node keeps its old file
	say "installed $APPLIANCE"
	if systemctl is-active --quiet appliance; then
		systemctl restart appliance # containers go on meanwhile
		say "restarted with the new binary"
	fi
}

write_hosts() {
	[ -n "${HOSTS:-}" ] || return 0
	{
		sed '/# appliance begin/,/# appliance end/d' /etc/hosts | grep -v "^127.0.1.1[[:space:]].*$NODE_NAME" || true
		echo "# appliance begin"
		echo "$HOSTS"
		echo "# appliance end"
	} >/etc/hosts.new
	if cmp -s /etc/hosts.new /etc/hosts; then rm /etc/hosts.new; return; fi
	cat /etc/hosts.new >/etc/hosts # in place: it may be a mount
	rm /etc/hosts.new
	say "wrote /etc/hosts"
}

# The binary writes this file as the last act of init and join.
member() { [ -e "$DATA/config.json" ]; }

# Without --no-start, init and join install the systemd unit and start it.
found_cluster() {
	set -- --name "$NODE_NAME" --advertise "$NODE_ADDRESS" --cluster "${CLUSTER:-appliance}"
	[ -z "${VIP:-}" ] || set -- "$@" --vip "$VIP"
	"$APPLIANCE" init "$@" --json >/dev/null # what it prints are secrets; tokens come below
	say "made the cluster"
}

# Tokens live for a day; those in the folder are renewed before they are old.
hand_out_tokens() {
	umask 077
	mkdir -p "$JOIN"
	for role in master agent; do
		[ -z "$(find "$JOIN/$role" -size +0 -mmin -720 2>/dev/null)" ] || continue
		"$APPLIANCE" token create --role "$role" --json | field token >"$JOIN/$role.new"
		[ -s "$JOIN/$role.new" ] || die "'appliance token create --role $role' gave no token: look at 'journalctl -u appliance'"
		mv "$JOIN/$role.new" "$JOIN/$role"
	done
	umask 022
}

# A string of a flat JSON object, without needing jq on the machine.
field() { tr -d '\n' | sed -n "s/.*\"$1\"[[:space:]]*:[[:space:]]*\"\([^\"]*\)\".*/\1/p"; }

join_cluster() {
	waited=0
	until [ -s "$JOIN/$NODE_ROLE" ]; do
		[ "$waited" -lt "$WAIT" ] || die "no join token at $JOIN/$NODE_ROLE after $WAIT s: provision the first master ($FIRST_MASTER) first"
		waited=$((waited + 1))
		sleep 1
	done
	set -- --name "$NODE_NAME" --advertise "$NODE_ADDRESS" --role "$NODE_ROLE" --token "$(cat "$JOIN/$NODE_ROLE")"
	for attribute in ${NODE_ATTRIBUTES:-}; do
		set -- "$@" --attribute "$attribute"
	done
	"$APPLIANCE" join "$@" "$FIRST_MASTER:7600"
	say "joined as $NODE_ROLE"
}

install_binary
write_hosts
if member; then
	systemctl start appliance
elif [ "$NODE_ADDRESS" = "$FIRST_MASTER" ]; then
	found_cluster
else
	join_cluster
fi
[ "$NODE_ADDRESS" != "$FIRST_MASTER" ] || hand_out_tokens
say "$NODE_NAME is ready"
