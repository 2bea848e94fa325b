<?php

// As the framework's: its prefix is that of an application that has not chosen one.
return ['redis' => [
    'client' => 'phpredis',
    'options' => ['prefix' => 'laravel_database_'],
    'default' => ['host' => '127.0.0.1', 'port' => (int) getenv('CLIENTS_REDIS_PORT'), 'database' => 0],
]];
