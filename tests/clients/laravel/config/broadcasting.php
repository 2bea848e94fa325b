<?php

// As `php artisan install:broadcasting` writes it; the environment says where.
$place = [
    'key' => getenv('CLIENTS_KEY'),
    'secret' => getenv('CLIENTS_SECRET'),
    'app_id' => getenv('CLIENTS_APP'),
    'options' => [
        'host' => '127.0.0.1', 'port' => (int) getenv('CLIENTS_PORT'), 'scheme' => 'http', 'useTLS' => false,
    ],
];

return [
    'default' => getenv('BROADCAST_CONNECTION'),
    'connections' => [
        'pusher' => ['driver' => 'pusher'] + $place,
        'reverb' => ['driver' => 'reverb'] + $place,
        'redis' => ['driver' => 'redis', 'connection' => 'default'],
        // Its library sends a key by TLS only.
        'ably' => [
            'driver' => 'ably', 'key' => getenv('CLIENTS_KEY').':'.getenv('CLIENTS_SECRET'),
            'restHost' => '127.0.0.1', 'tlsPort' => (int) getenv('CLIENTS_TLS_PORT'), 'fallbackHosts' => [],
        ],
    ],
];
