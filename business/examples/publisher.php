<?php
// A PHP program without any extension: sends one message to a group through any gateway's internal
// port and prints the receipt.
//
// Run: php business/examples/publisher.php lobby 'hello from PHP'
//
// BROADGATE_ADDR names a gateway's internal port (127.0.0.1:7200), BROADGATE_SECRET the cluster's
// secret; where the cluster has [cluster.tls], BROADGATE_CLUSTER__TLS__CA, __CERT, __KEY and
// __SERVER_NAME are the same as for its processes. Names and fields are those of SendRequest in proto/broadgate/v1/gateway.proto.

$group = $argv[1] ?? 'lobby';
$text = $argv[2] ?? 'hello from PHP';
$address = getenv('BROADGATE_ADDR') ?: '127.0.0.1:7200';

// Operators see the name in the audit, and where a command of this program closes a client.
$headers = ['Content-Type: application/json', 'broadgate-worker: publisher-php'];
$secret = getenv('BROADGATE_SECRET');
if ($secret !== false && $secret !== '') {
    // While the secret is being changed there are two; the first is sent.
    $headers[] = 'Authorization: Bearer ' . preg_split('/[\s,]+/', trim($secret))[0];
}

$body = json_encode(['to' => ['groups' => [$group]], 'text' => $text], JSON_THROW_ON_ERROR);
$context = stream_context_create(['http' => [
    'method' => 'POST',
    'header' => implode("\r\n", $headers),
    'content' => $body,
    'timeout' => 5,
    // So that a refusal's sentence can be read, too.
    'ignore_errors' => true,
]]);

$tls = fn (string $name) => getenv("BROADGATE_CLUSTER__TLS__$name") ?: null;
$scheme = $tls('CA') === null ? 'http' : 'https';
if ($scheme === 'https') {
    // All certificates of a cluster have one name, whatever address is called.
    stream_context_set_option($context, ['ssl' => [
        'cafile' => $tls('CA'),
        'local_cert' => $tls('CERT'),
        'local_pk' => $tls('KEY'),
        'peer_name' => $tls('SERVER_NAME') ?? 'broadgate',
    ]]);
}

$stream = @fopen("$scheme://$address/v1/Send", 'r', false, $context);
if ($stream === false) {
    fwrite(STDERR, "No gateway answers at $address: is the cluster up? (BROADGATE_ADDR)\n");
    exit(5);
}
$answer = stream_get_contents($stream);
$status = stream_get_meta_data($stream)['wrapper_data'][0];
if (!str_contains($status, ' 200')) {
    fwrite(STDERR, "Refused ($status): $answer\n");
    exit(1);
}
echo $answer, "\n";
