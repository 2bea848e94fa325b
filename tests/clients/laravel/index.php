<?php
// php -S 127.0.0.1:PORT index.php: a Laravel application of one file. It serves the page, its bundles,
// /broadcasting/auth, and POST /orders, which broadcasts.

use App\Events\OrderShipped;
use Illuminate\Auth\GenericUser;
use Illuminate\Broadcasting\BroadcastManager;
use Illuminate\Broadcasting\Broadcasters\PusherBroadcaster;
use Illuminate\Foundation\Application;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Broadcast;
use Illuminate\Support\Facades\Route;

$files = json_decode(getenv('CLIENTS_FILES'), true);
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if (isset($files[$path])) {
    header("Content-Type: {$files[$path][0]}; charset=utf-8");
    readfile($files[$path][1]);

    return;
}

require __DIR__.'/load.php';
error_reporting(E_ALL & ~E_DEPRECATED);

$app = new Application(__DIR__);
$app->useStoragePath(getenv('CLIENTS_STORAGE'));
$app->singleton(Illuminate\Contracts\Http\Kernel::class, Illuminate\Foundation\Http\Kernel::class);
$app->singleton(Illuminate\Contracts\Debug\ExceptionHandler::class, Illuminate\Foundation\Exceptions\Handler::class);

$app->booted(function () use ($app) {
    // Pages name their user in a header of their own, gateways pass on its bearer token.
    Auth::viaRequest('by-header', fn (Request $request) => ($name = $request->header('X-User') ?? $request->bearerToken())
        ? new GenericUser(['id' => $name, 'name' => ucfirst($name)]) : null);
    if (! method_exists(BroadcastManager::class, 'createReverbDriver')) {
        // Before Laravel 11 the reverb connection is a pusher connection by another name.
        Broadcast::extend('reverb', fn ($app, array $config) => new PusherBroadcaster(
            new Pusher\Pusher($config['key'], $config['secret'], $config['app_id'], $config['options'])
        ));
    }
    Broadcast::routes(['middleware' => []]);
    Broadcast::channel('orders.{id}', fn ($user, $id) => $user->id !== 'eve');
    Broadcast::channel('room.{id}', fn ($user, $id) => ['id' => $user->id, 'name' => $user->name]);
    Route::get('/version', fn () => Application::VERSION);
    Route::post('/orders', function (Request $request) {
        $sending = broadcast(new OrderShipped($request->input('channel'), $request->input('text')));
        if ($request->input('to_others')) {
            $sending->toOthers();
        }
        unset($sending);

        return ['sent' => true];
    });
});

$kernel = $app->make(Illuminate\Contracts\Http\Kernel::class);
$response = $kernel->handle($request = Request::capture())->send();
$kernel->terminate($request, $response);
